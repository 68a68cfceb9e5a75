"""Wrong inputs are refused with a line that names the field; sensible ones at the edge are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from advntk_dist.errors import RequestError
from advntk_dist.report import DegenerationCurve, Examples, Extremes, KernelSpectrum, ReportInputs, TrainingHistory

Make = Callable[..., ReportInputs]

CURVE = DegenerationCurve(np.array([0.1, 1.0]), np.array([0.5, 0.6]), np.array([0.4, 0.3]), 0.7, 0.2, 0.1, 100)
IMAGES = np.zeros((2, 8, 8, 1))
EXAMPLES = Examples(IMAGES, IMAGES, np.array([0, 1]), np.array([0, 1]), np.array([1, 1]), "ntk")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"times": np.array([1.0, 0.1])}, "curve.times"),
        ({"times": np.array([0.1, 0.1])}, "curve.times"),
        ({"times": np.array([-1.0, 0.1])}, "curve.times"),
        ({"times": np.array([0.1, np.inf])}, "curve.times"),
        ({"times": np.array([[0.1, 1.0]])}, "curve.times"),
        ({"times": np.array([0.0]), "clean": np.array([0.1]), "robust": np.array([0.1])}, "curve.times"),
        ({"clean": np.array([0.5])}, "curve.clean"),
        ({"robust": np.array([40.0, 30.0])}, "curve.robust"),
        ({"clean_ntk": 70.0}, "curve.clean_ntk"),
        ({"robust_ntk": float("nan")}, "curve.robust_ntk"),
        ({"chosen_t": -1.0}, "curve.chosen_t"),
        ({"n_test": 0}, "curve.n_test"),
    ],
)
def test_curve_refuses(change: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError, match=f"report: {field}: .*; "):
        replace(CURVE, **change)


def test_training_refuses_ragged_and_per_cent() -> None:
    five = np.linspace(0.1, 0.5, 5)
    with pytest.raises(RequestError, match=r"training\.varpi_max: shape \(4,\), expected \(5,\)"):
        TrainingHistory(five, five, five, five, five[:4])
    with pytest.raises(RequestError, match=r"training\.robust: accuracies outside"):
        TrainingHistory(five, five, 100 * five, five, five)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"clean": IMAGES[0]}, "examples.clean"),
        ({"adversarial": IMAGES[:1]}, "examples.adversarial"),
        ({"adversarial": IMAGES + 0.51}, "examples.adversarial"),
        ({"clean": IMAGES * np.nan}, "examples.clean"),
        ({"predicted_adversarial": np.array([0])}, "examples.predicted_adversarial"),
    ],
)
def test_examples_refuse(change: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError, match=f"report: {field}: .*; "):
        replace(EXAMPLES, **change)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"varpi": np.full(1000, -1.0)}, "varpi"),
        ({"varpi": np.full(1000, np.nan)}, "varpi"),
        ({"varpi": np.ones((10, 100))}, "varpi"),
        ({"y_train": np.zeros(3, dtype=int)}, "y_train"),
        ({"y_train": np.zeros(1000)}, "y_train"),
        ({"y_train": np.full(1000, 10)}, "y_train"),
        ({"y_train": np.full(1000, -1)}, "y_train"),
        ({"y_test": np.array([0, 10])}, "y_test"),
        ({"classes": ("0", "1", "2"), "y_train": None}, "examples.labels"),
    ],
)
def test_inputs_refuse(make: Make, change: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError, match=f"report: {field}.*; "):
        make(**change)


def test_edges_are_allowed(make: Make) -> None:
    replace(CURVE, times=np.array([0.0, 1.0]), chosen_t=np.inf)
    replace(EXAMPLES, adversarial=(IMAGES + 0.5).astype(np.float32) + np.float32(5e-7))
    make(varpi=np.zeros(1000), training=TrainingHistory(*[np.array([0.5])] * 5))


def test_extremes_refuse_what_does_not_fit() -> None:
    two, labels = np.array([0.1, 0.2]), np.array([0, 1])
    with pytest.raises(RequestError, match=r"extremes\.shortest: shapes .*; "):
        Extremes(IMAGES, two, labels, IMAGES, two[:1], labels)


@pytest.mark.parametrize("values", [np.array([1.0, 2.0]), np.array([1.0, 0.0]), np.array([]), np.ones((2, 2))])
def test_spectrum_refuses_what_is_not_descending(values: Any) -> None:
    with pytest.raises(RequestError, match=r"spectrum\.eigenvalues: .*; "):
        KernelSpectrum(values, values, 10)


def test_spectrum_wants_a_bound_each() -> None:
    with pytest.raises(RequestError, match=r"spectrum\.errors: "):
        KernelSpectrum(np.array([2.0, 1.0]), np.array([0.1]), 10)
