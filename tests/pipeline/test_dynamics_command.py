"""`advntk dynamics` on a small finished run."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from advntk_dist.errors import StoreDamagedError
from advntk_dist.pipeline.dynamics import DynamicsRequest, dynamics
from advntk_dist.progress import Display
from advntk_dist.report.dynamics import dynamics_plot, read_dynamics
from advntk_dist.theory.flows import adversarial_flow, class_distances
from tests.pipeline.conftest import Command, Refused, results_of
from tests.solve.dense_reference import dense_coefficients
from tests.undrawn import drawn

QUIET = Display(quiet=True)


@pytest.fixture(scope="module")
def worked(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dynamics") / "run"
    shutil.copytree(finished, folder)
    dynamics(folder, DynamicsRequest(), display=QUIET)
    return folder


def _results(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "dynamics.json").read_text()))


def test_files_agree_and_the_run_is_left_as_it_was(worked: Path, finished: Path) -> None:
    results = _results(worked)
    rows = list(csv.DictReader((worked / "dynamics.csv").open()))
    flat = [row for flow in results["flows"].values() for row in flow["rows"]]
    assert len(rows) == len(flat) == 2 * (2 + 1)
    for text, row in zip(rows, flat, strict=True):
        assert float(text["robust"]) == row["robust"]
        assert float(text["t"]) == (math.inf if row["t"] is None else row["t"])
    assert (worked / "dynamics.svg").read_text().startswith("<svg")
    assert (worked / "results.json").read_bytes() == (finished / "results.json").read_bytes()
    assert set(zarr.open_group(worked / "dynamics.zarr", mode="r")) == set(
        zarr.open_group(finished / "dynamics.zarr", mode="r")
    )


def test_the_plot_shows_both_kinds_of_training(worked: Path) -> None:
    with drawn():
        found = read_dynamics(worked)
        assert found is not None
        plot = dynamics_plot(found)
    for words in ("standard training", "adversarial training", "stop here", "effective training time"):
        assert words in plot.svg
    assert plot.csv == (worked / "dynamics.csv").read_text()


def test_standard_training_is_what_the_run_found(worked: Path) -> None:
    run, results = results_of(worked), _results(worked)
    standard = results["flows"]["standard"]
    for found, row in zip(standard["rows"], run["curve"]["test"], strict=False):
        assert (found["clean"], found["robust"]) == (row["clean"], row["robust"])
    assert standard["early_stopping"]["t"] == run["methods"]["early_stopped"]["t"]
    limit = standard["rows"][-1]
    assert (limit["clean"], limit["robust"]) == (run["methods"]["ntk"]["clean"], run["methods"]["ntk"]["robust"])
    assert limit == results["flows"]["adversarial"]["rows"][-1]
    assert limit["distance_to_ntk"] == 0
    assert limit["train_residual"] < 1e-4
    assert standard["solver"]["bases"] == results["flows"]["adversarial"]["solver"]["bases"] == 1
    for flow in results["flows"].values():
        distances = [row["distance_to_ntk"] for row in flow["rows"]]
        assert distances == sorted(distances, reverse=True)


def test_adversarial_training_equals_the_dense_formula(worked: Path) -> None:
    from advntk_dist.pipeline.context import Problem
    from advntk_dist.pipeline.directory import RunDirectory

    problem = Problem(RunDirectory(worked).stored_config())
    x, y = problem.train.x, problem.targets
    theta = problem.net.ntk(x.astype(np.float64), x.astype(np.float64))
    factors = class_distances(x, problem.train.y)
    ark = problem.net.ark(x).astype(np.float64)
    rows = _results(worked)["flows"]["adversarial"]["rows"]
    for row in rows[:-1]:
        varpi = row["t"] * np.exp(2.0 * ark * factors / np.median(ark * factors))
        residual = theta @ dense_coefficients(theta, y, varpi, 1.0) - y
        assert row["train_residual"] == pytest.approx(np.linalg.norm(residual) / np.linalg.norm(y), rel=1e-4)


def test_the_second_time_nothing_is_attacked(worked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (worked / name).read_bytes() for name in ("dynamics.json", "dynamics.csv", "dynamics.svg")}

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("solved or attacked again")

    monkeypatch.setattr("advntk_dist.dynamics.ATDynamics.trajectory", fail)
    monkeypatch.setattr("advntk_dist.predictor.KernelPredictor.predict", fail)
    dynamics(worked, DynamicsRequest(), display=QUIET)
    assert {name: (worked / name).read_bytes() for name in before} == before


def test_an_interrupted_command_goes_on_from_the_last_batch(finished: Path, worked: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    for path in ("results.json", "report.html"):  # a Gram matrix is enough
        (folder / path).unlink()
    shutil.rmtree(folder / "train.zarr")

    class Interrupted(Exception):
        pass

    class Stop(Display):
        def stage(self, name: str, total: int, unit: str) -> Any:
            if name == "Adversarial flow, test":
                raise Interrupted
            return super().stage(name, total, unit)

    with pytest.raises(Interrupted):
        dynamics(folder, DynamicsRequest(), display=Stop(quiet=True))
    assert not (folder / "dynamics.json").exists()
    dynamics(folder, DynamicsRequest(), display=QUIET)
    assert _results(folder) == _results(worked)


def test_a_schedule_reports_its_distance_to_the_exact_flow(worked: Path, advntk: Command, tmp_path: Path) -> None:
    folder = shutil.copytree(worked, tmp_path / "run")
    code, out, _ = advntk("-q", "dynamics", str(folder), "--schedule", "cosine", "--pieces", "2", "--images", "20")
    assert code == 0
    assert "largest distance of the closed form to the exact flow" in out
    results = _results(folder)
    at = results["flows"]["adversarial"]
    assert not at["closed_form_is_exact"]
    assert at["solver"]["bases"] == 2
    assert 0 < results["exactness"]["largest_refinement"] < results["exactness"]["largest_distance"] < 0.5
    assert all(row["n_test"] == 20 for row in at["rows"])


def test_one_rate_for_all_is_the_clock_rescaled(worked: Path, advntk: Command, tmp_path: Path) -> None:
    folder = shutil.copytree(worked, tmp_path / "run")
    code, out, _ = advntk("-q", "dynamics", str(folder), "--rates", "uniform")
    assert code == 0
    assert "clock rescaled" in out
    flows = _results(folder)["flows"]
    for a, b in zip(flows["standard"]["rows"], flows["adversarial"]["rows"], strict=True):
        assert a["robust"] == pytest.approx(b["robust"], abs=0.02)
        assert a["train_residual"] == pytest.approx(b["train_residual"], rel=1e-4)


def test_the_report_shows_it_with_one_sentence(worked: Path, finished: Path) -> None:
    page = (worked / "report.html").read_text()
    assert "Standard and adversarial training in closed form" in page
    assert "the plain NTK (dashed)" in page
    assert page.count("<figure>") == (finished / "report.html").read_text().count("<figure>") + 1


def test_a_run_that_lost_its_matrix_or_its_dynamics(worked: Path, refused: Refused, tmp_path: Path) -> None:
    broken = shutil.copytree(worked, tmp_path / "run")
    shutil.rmtree(broken / "gram.zarr")
    assert "gram.zarr" in refused(2, "-q", "dynamics", broken)
    assert "sawtooth" in refused(2, "-q", "dynamics", worked, "--schedule", "sawtooth")
    (broken / "dynamics.json").write_text("{")
    with pytest.raises(StoreDamagedError, match=r"dynamics.json"):
        read_dynamics(broken)
    assert read_dynamics(tmp_path) is None


def test_class_distances() -> None:
    def images(*values: float) -> NDArray[np.float64]:
        return np.array(values).reshape(-1, 1, 1, 1)

    found = class_distances(images(0.0, 0.1, 0.3, 0.45), np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(found, np.array([0.3, 0.2, 0.2, 0.35]) / 0.25)
    np.testing.assert_array_equal(class_distances(images(0.0, 0.1), np.array([1, 1])), 1.0)


def test_strength_is_the_exponent_of_the_median_sample() -> None:
    ark, factors = np.array([1.0, 2.0, 4.0]), np.array([1.0, 0.5, 2.0])
    flow = adversarial_flow(ark, factors, strength=3.0, schedule="constant", duration=None, times=[1e-3, 1.0])
    np.testing.assert_allclose(flow.exponent, 3.0 * np.array([1.0, 1.0, 8.0]))
    np.testing.assert_allclose(flow.effective, [1e-3, 1.0])
    assert flow.commutes
    varied = adversarial_flow(ark, factors, strength=3.0, schedule="step", duration=None, times=[1e-3, 1.0])
    assert not varied.commutes
