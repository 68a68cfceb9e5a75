"""Inputs of a report as a digits run would leave them: real images, a real (linear) predictor under attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier

from advntk_dist.report import (
    DegenerationCurve,
    Examples,
    KernelSpectrum,
    ReportInputs,
    TrainingHistory,
    extremes_of,
    write_report,
)
from advntk_dist.report.compare import ComparedRun, write_comparison
from advntk_dist.results.schema import PairRow, RunResults
from advntk_dist.storage.paths import local
from tests.stored_results import accuracies, under_one_attack
from tests.undrawn import drawn
from tests.undrawn import figures_are_undrawn as figures_are_undrawn

N_TEST = 497
RADIUS = 0.2


def _method(clean: float, robust: float, **more: object) -> dict[str, Any]:
    half = 0.0415
    return {
        "clean": clean,
        "robust": robust,
        "clean_interval": [round(clean - 0.0131, 6), min(1.0, round(clean + 0.0077, 6))],
        "robust_interval": [round(robust - half, 6), round(robust + half, 6)],
        "n_test": N_TEST,
        "max_perturbation": 0.20000000298023224,
        **more,
    }


def _pair(method: str, against: str, clean: float, robust: float) -> dict[str, Any]:
    ends = {"clean_interval": [clean - 0.0101, clean + 0.0103], "robust_interval": [robust - 0.0305, robust + 0.0301]}
    return {"method": method, "against": against, "n_test": N_TEST, "clean": clean, "robust": robust} | ends


def digits_results() -> dict[str, Any]:
    """``results.json`` of a digits run, with the nesting and the kinds of value of the real file."""
    attack = {
        "name": "pgd",
        "radius": RADIUS,
        "steps": 10,
        "step_size": 0.04,
        "norm": "linf",
        "seed": 7,
        "max_perturbation": 0.20000000298023224,
    }
    methods = {
        "ntk": _method(0.9899396378269618, 0.23340040241448692),
        "early_stopped": _method(0.9657947686116701, 0.3903420523138833, t=0.0316227766),
        "adv_ntk": _method(0.9738430583501007, 0.3682092555331992, recipe="paper", steps=50, lr=1.0),
    }
    pairs = [
        _pair("early_stopped", "ntk", -0.024145, 0.156942),
        _pair("adv_ntk", "ntk", -0.016097, 0.134809),
        _pair("adv_ntk", "early_stopped", 0.008048, -0.022133),
    ]
    return {
        "n_train": 1000,
        "n_val": 300,
        "n_test": N_TEST,
        "network": "mlp-3",
        "dataset": "digits",
        **under_one_attack(attack, methods, pairs),
        "seconds": {"gram": 3.812, "select": 21.455, "train": 96.02, "evaluate": 41.7, "report": 2.25},
        "environment": {
            "python": "3.11.2",
            "jax": "0.10.2",
            "ray": "2.60.0",
            "zarr": "3.1.5",
            "cpu_count": 2,
            "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
        },
        "gram": {"tile": 256, "tiles": 10, "bytes": 2621440, "backend": "neural-tangents", "dtype": "float32"},
        "solver": {"tolerance": 1e-08, "passes": {"select": 31, "train": 812}, "worst_ritz": -1.9073486328125e-06},
        "curve": curve_results(degeneration_curve()),
        "tier": {"asked": "none", "worth": False},
        "peak_bytes": {"driver": 123456789, "worker": 0},
    }


def _digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    x, y = load_digits(return_X_y=True)
    return x.reshape(-1, 8, 8, 1) / 16.0 - 0.5, y


def digits_examples(count: int) -> Examples:
    """Digits and their twins under one exact l-infinity step against a ridge classifier."""
    images, y = _digits()
    x = images.reshape(len(images), -1)
    model = RidgeClassifier(alpha=10.0).fit(x[:1000], y[:1000])
    clean, labels = x[1000 : 1000 + count], y[1000 : 1000 + count]
    margins = model.decision_function(clean)
    margins[np.arange(count), labels] = -np.inf
    direction = model.coef_[margins.argmax(axis=1)] - model.coef_[labels]
    twin = np.clip(clean + RADIUS * np.sign(direction), -0.5, 0.5)
    shape = (count, 8, 8, 1)
    return Examples(
        clean=clean.reshape(shape),
        adversarial=twin.reshape(shape),
        labels=labels,
        predicted_clean=model.predict(clean),
        predicted_adversarial=model.predict(twin),
        method="adv_ntk",
    )


def degeneration_curve(times: int = 24) -> DegenerationCurve:
    """A curve with the shape that the method has: robust accuracy rises, then falls to the plain NTK's."""
    t = np.geomspace(1e-4, 1e4, times)
    place = np.log10(t)
    clean = 0.9899 - 0.45 / (1.0 + np.exp(1.3 * (place + 3.2)))
    robust = 0.2334 + 0.17 * np.exp(-(((place + 2.0) / 1.9) ** 2)) - 0.05 * (place < -3) * (-3 - place)
    rounded = zip(*(np.round(values * N_TEST) / N_TEST for values in (clean, robust)), strict=True)
    rows = tuple(accuracies(float(at), float(under), N_TEST) for at, under in rounded)
    limit = accuracies(0.9899396378269618, 0.23340040241448692, N_TEST)
    return DegenerationCurve(tuple(map(float, t)), rows, limit, 0.0316227766)


def curve_results(curve: DegenerationCurve) -> dict[str, Any]:
    """The curve of ``results.json``."""
    rows = [row.model_dump(mode="json") for row in curve.rows]
    return {"times": list(curve.times), "validation": rows[:1], "test": rows}


def make_inputs(**changes: object) -> ReportInputs:
    """Whole inputs of a digits run; keywords replace parts."""
    random = np.random.default_rng(3)
    steps = np.arange(50)
    parts: dict[str, Any] = {
        "results": digits_results(),
        "config_toml": '[data]\nname = "digits"\nn_train = 1000\n\n[attack]\nname = "pgd"\nradius = 0.2\n',
        "training": TrainingHistory(
            loss=0.31 + 0.19 * np.exp(-steps / 9) + 0.008 * random.standard_normal(50),
            grad_norm=2e-2 * np.exp(-steps / 11) + 2e-4 + 2e-5 * random.random(50),
            robust=np.round(128 * (0.37 - 0.3 * np.exp(-steps / 7) + 0.02 * random.standard_normal(50))) / 128,
            varpi_mean=0.022 * steps**0.9,
            varpi_max=0.19 * steps**0.95,
        ),
        "varpi": np.abs(random.gamma(1.6, 0.5, size=1000) * np.repeat(np.linspace(0.5, 1.6, 10), 100)),
        "y_train": np.repeat(np.arange(10), 100),
        "y_test": np.arange(N_TEST) % 10,
        "classes": tuple("0123456789"),
        "examples": digits_examples(6),
        "spectrum": KernelSpectrum(400.0 * np.arange(1, 61) ** -1.4, 1e-3 * np.ones(60), 1000),
    }
    parts["extremes"] = extremes_of(_digits()[0][:1000], parts["varpi"], parts["y_train"])
    parts.update(changes)
    parts["results"] = RunResults.model_validate(parts["results"])
    return ReportInputs(**parts)


def make_with_curve(curve: DegenerationCurve) -> ReportInputs:
    """Whole inputs of a digits run whose degeneration curve, plain NTK and chosen time are these."""
    results = digits_results() | {"curve": curve_results(curve)}
    results["methods"]["ntk"] = curve.limit.model_dump(mode="json")
    results["methods"]["early_stopped"]["t"] = curve.chosen_t
    return make_inputs(results=results)


@pytest.fixture(scope="session")
def make() -> Callable[..., ReportInputs]:
    """Whole inputs of a digits run; keywords replace parts."""
    return make_inputs


@pytest.fixture(scope="session")
def with_curve() -> Callable[[DegenerationCurve], ReportInputs]:
    """Whole inputs of a digits run with a curve of one's own."""
    return make_with_curve


@pytest.fixture
def results() -> dict[str, Any]:
    """``results.json`` of a digits run, free to be changed."""
    return digits_results()


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the report of a whole digits run."""
    folder = tmp_path_factory.mktemp("report")
    with drawn():
        write_report(make_inputs(), folder)
    return folder


def compared_run(name: str, shift: float = 0.0, **config: object) -> ComparedRun:
    """A run to compare, its robust accuracies moved by ``shift``."""
    found, curve = digits_results(), degeneration_curve(9)
    found["methods"]["adv_ntk"] = _method(0.97, 0.37 + shift, recipe="paper", steps=50, lr=1.0)
    found |= under_one_attack(found["attack"], found["methods"], found["paired"])
    rows = tuple(accuracies(row.clean, min(1.0, row.robust + shift), N_TEST) for row in curve.rows)
    found["curve"] = curve_results(replace(curve, rows=rows))
    return ComparedRun(name, RunResults.model_validate(found), {"data": {"n_train": 1000, "seed": 0}, **config})


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [compared_run("first"), compared_run("second", 0.02, train={"lr": 0.5}), compared_run("third", -0.05)]
    pairs = [PairRow(**_pair("second: Adv-NTK", "first: Adv-NTK", 0.0, 0.02))]
    with drawn():
        return local(write_comparison(runs, tmp_path_factory.mktemp("compared") / "new" / "comparison.html", pairs))


@pytest.fixture(scope="session")
def comparable() -> Callable[..., ComparedRun]:
    return compared_run
