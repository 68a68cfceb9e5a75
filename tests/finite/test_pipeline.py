"""`advntk finite-width` from its configuration to its report, interrupted and not."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advntk_dist.config import load_config as load_run
from advntk_dist.config import parse_as, preset_names, preset_text, read_config
from advntk_dist.config.finite_width import FiniteWidthConfig
from advntk_dist.errors import ConfigError, RequestError, SolverError, StoreDamagedError, StoreMismatchError
from advntk_dist.finite.trials import Trial, flow_trial, run_trials
from advntk_dist.pipeline import finite_width
from advntk_dist.pipeline.context import Problem
from advntk_dist.pipeline.finite_width import FiniteRunDirectory, run_finite_width
from advntk_dist.progress import Display
from advntk_dist.report.finite_page import make_plots, training_caption
from advntk_dist.results import schema, sealed
from tests.conftest import Command
from tests.stored_results import method, run_results
from tests.terminal import setting_words, without_ray
from tests.undrawn import drawn

QUIET = Display(quiet=True)
SHARED = (
    *("data.n_train=60", "data.n_val=20", "data.n_test=40", "network.name=mlp-2", "gram.tile=64", "gram.workers=1"),
    *("attack.steps=2", "train.steps=2", "train.batch=16", "evaluation.times=[1e-3, 1e-1]", "evaluation.batch=32"),
    *("evaluation.tier=none",),
)
PAPER = ("train.recipe=paper", "attack.loss=squared-error")
"""What a run must be trained with to be set beside finite networks, which know no other."""
OWN = (
    *("flow.widths=[16, 64]", "flow.seeds=2", "flow.n_train=10", "flow.n_test=4", "flow.points=3"),
    *("flow.inner_steps=2", "flow.end=0.05", "flow.tolerance=0.2", "finite.width=16", "finite.steps=20"),
    *("finite.evaluate_every=10", "finite.batch=20"),
)


def config() -> FiniteWidthConfig:
    return read_config(FiniteWidthConfig, "digits", (*SHARED, *OWN))


@pytest.fixture(scope="module")
def infinite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What finite-width reads of a finished run: its configuration and its results."""
    folder = tmp_path_factory.mktemp("infinite")
    (folder / "config.toml").write_text(load_run("digits", (*SHARED, *PAPER)).to_toml())
    methods = {name: method(0.2) for name in ("ntk", "early_stopped", "adv_ntk")}
    sealed.write(folder / "results.json", schema.RunResults, run_results(**methods))
    return folder


def run_trials_here(
    function: Callable[..., None],
    trials: Sequence[Trial],
    shared: Sequence[Any],
    large: Sequence[Any],
    *,
    address: str | None,
    on_done: Callable[[Trial], None],
) -> None:
    """In this process, one after the other: each worker of Ray would compile them anew."""
    for trial in trials:
        function(trial, *shared, *large)
        on_done(trial)


@pytest.fixture(scope="module")
def finished(infinite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finite") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finite_width, "run_trials", run_trials_here)
        assert run_finite_width(config(), folder, infinite=infinite, display=QUIET).worked
    return folder


def numbers(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    del results["seconds"], results["checksum"]
    return results


def test_results_have_every_method_with_intervals_and_every_trial(finished: Path, infinite: Path) -> None:
    results = numbers(finished)
    assert set(results["methods"]) == {"ntk", "early_stopped", "adv_ntk", "finite_at", "finite_at_best"}
    assert results["methods"]["ntk"] == json.loads((infinite / "results.json").read_text())["methods"]["ntk"]
    for row in results["methods"].values():
        for key in ("clean", "robust"):
            low, high = row[f"{key}_interval"]
            assert low <= row[key] <= high
        assert row["n_test"] == 40
    rows = results["flow"]["rows"]
    assert [(row["width"], row["seed"]) for row in rows] == [(16, 0), (16, 1), (64, 0), (64, 1)]
    assert set(results["flow"]["slopes"]) == {"gap_train", "gap_test", "ntk_change", "ark_change"}
    assert results["flow"]["ark"] == pytest.approx(1.76**4 / 2, rel=1e-5)
    closed = results["flow"]["closed_form"]
    assert closed["times"][0] == 0
    assert len(closed["times"]) == len(closed["widths"][0]["distance"]) == 3
    for found in closed["widths"]:  # at t = 0 the start is all there is, and it is taken off
        assert found["start_removed"]["distance"][0] == pytest.approx(0, abs=1e-12)
        assert max(found["start_removed"]["standard_error"]) < max(found["standard_error"])


PLOTS = ("finite_width", "ensemble", "adversarial_training", "methods")


def test_every_promised_file_is_there(finished: Path) -> None:
    plots = [f"{name}.{ending}" for name in PLOTS for ending in ("svg", "csv")]
    for name in ("config.toml", "events.jsonl", "report.html", *plots):
        assert (finished / name).stat().st_size > 0, name
    with (finished / "finite_width.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["gap_test"]) for row in rows] == [row["gap_test"] for row in numbers(finished)["flow"]["rows"]]
    page = (finished / "report.html").read_text()
    assert "Finite AT, last step" in page
    assert page.count("<figcaption>") == 4


def test_a_second_start_changes_nothing(finished: Path, advntk: Command) -> None:
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    code, out, _ = advntk("finite-width", "digits", "--out", finished, *setting_words((*SHARED, *OWN)))
    assert code == 0
    assert "nothing to do" in out
    assert "gap_test" in out
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == before


def interrupted(finished: Path, folder: Path) -> Path:
    """A copy of a finished run as after a kill between the two evaluations of the training."""
    shutil.copytree(finished, folder)
    (folder / "results.json").unlink()
    training = folder / "trials" / "training-w16-s0.zarr"
    assert (training / "history" / "c" / "0" / "0").exists()
    for part in ("history/c/1", "state/c/1", "validation_1", "test_1"):
        shutil.rmtree(training / part)
    return folder


def test_lost_trials_are_run_again_with_the_same_numbers(
    finished: Path, infinite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = interrupted(finished, tmp_path / "copy")
    shutil.rmtree(folder / "trials" / "flow-w64-s1.zarr")
    monkeypatch.setattr(finite_width, "run_trials", run_trials_here)
    assert run_finite_width(config(), folder, infinite=infinite, display=QUIET).worked
    assert numbers(folder) == numbers(finished)


def test_a_lost_trial_is_run_again_on_ray(finished: Path, infinite: Path, tmp_path: Path, ray_cluster: None) -> None:
    """To rounding: another process goes on with it."""
    folder = interrupted(finished, tmp_path / "copy")
    before = len((folder / "events.jsonl").read_text().splitlines())
    assert run_finite_width(config(), folder, infinite=infinite, display=QUIET).worked
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()[before:]]
    assert [(e["width"], e["seed"]) for e in events if e["event"] == "trial"] == [(16, 0)]
    found, wanted = numbers(folder), numbers(finished)
    assert found["flow"] == wanted["flow"]
    for points, others in zip(*(n["training"]["seeds"].values() for n in (found, wanted)), strict=True):
        for point, other in zip(points, others, strict=True):
            assert point["loss"] == pytest.approx(other["loss"], rel=1e-3)
            for key in ("robust_train", "clean", "robust"):
                assert point[key] == pytest.approx(other[key], abs=1.5 / 40)


def test_plots_are_drawn(finished: Path) -> None:
    results = sealed.read(finished / "results.json", schema.FiniteWidthResults, "")
    assert results is not None
    with drawn():
        plots = make_plots(results)
    assert set(plots) == set(PLOTS)
    for name, words in zip(
        PLOTS, ("relative change of ARK", "width 64", "robust, training batches", "Finite AT"), strict=True
    ):
        assert words in plots[name].svg


def command(folder: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "advntk_dist", "finite-width", "digits", "--out", str(folder)]
    words += setting_words((*SHARED, *OWN))
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, env=without_ray(), start_new_session=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("events", [2, 6])
def test_a_killed_run_resumes_with_the_same_numbers(finished: Path, tmp_path: Path, events: int) -> None:
    """With its infinite-width job, which it runs itself here."""
    folder, deadline = tmp_path / "run", time.monotonic() + 400
    process, log = command(folder), folder / "events.jsonl"
    while not (log.exists() and len(log.read_text().splitlines()) >= events):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert not (folder / "results.json").exists()
    assert command(folder).wait(timeout=400) == 0
    resumed, wanted = numbers(folder), numbers(finished)
    for key in ("flow", "training"):
        assert resumed[key] == wanted[key]
    for name in ("finite_at", "finite_at_best"):
        assert resumed["methods"][name] == wanted["methods"][name]
    own = json.loads((folder / "infinite" / "results.json").read_text())["methods"]
    assert {name: resumed["methods"][name] for name in own} == own


def test_another_configuration_or_another_run_is_refused(finished: Path, infinite: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreMismatchError, match=r"flow\.end"):
        run_finite_width(
            read_config(FiniteWidthConfig, "digits", (*SHARED, *OWN, "flow.end=0.06")), finished, display=QUIET
        )
    other = read_config(FiniteWidthConfig, "digits", (*SHARED, *OWN, "attack.radius=0.3"))
    with pytest.raises(StoreMismatchError, match=r"attack\.radius"):
        run_finite_width(other, tmp_path / "a", infinite=infinite, display=QUIET)
    with pytest.raises(RequestError, match="not a run directory"):
        run_finite_width(config(), tmp_path / "a", infinite=tmp_path / "nowhere", display=QUIET)
    assert not (tmp_path / "a").exists()


def test_a_directory_of_another_command_is_refused(infinite: Path) -> None:
    with pytest.raises(RequestError, match="advntk run"):
        run_finite_width(config(), infinite, display=QUIET)


def test_an_unfinished_or_damaged_directory_says_so(infinite: Path, tmp_path: Path) -> None:
    shutil.copytree(infinite, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "results.json").unlink()
    with pytest.raises(RequestError, match="not finished"):
        run_finite_width(config(), tmp_path / "a", infinite=tmp_path / "unfinished", display=QUIET)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.toml").write_text("[data\n")
    with pytest.raises(StoreDamagedError, match=r"config\.toml: damaged"):
        FiniteRunDirectory(tmp_path / "b").stored_config()


def test_an_error_in_a_trial_comes_back_by_name(tmp_path: Path, ray_cluster: None) -> None:
    wild = config().flow.model_copy(update={"inner_time": 10.0})
    problem = Problem(config())
    parts = [part.x.astype(np.float64) for part in (problem.train.first(10), problem.test.first(4))]
    trial = Trial(str(tmp_path / "trial.zarr"), (("configuration", "wild"),), problem.net.spec, 16, 1)
    with pytest.raises(SolverError, match=r"width 16, seed 1: flow.*flow\.inner_time"):
        run_trials(flow_trial, [trial], (wild,), (parts[0], problem.targets[:10], parts[1]), address=None)


def test_an_error_in_a_trial_ends_the_command(infinite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite_width, "run_trials", run_trials_here)
    wild = read_config(FiniteWidthConfig, "digits", (*SHARED, *OWN, "flow.inner_time=10"))
    with pytest.raises(SolverError, match=r"flow.*width 64.*flow\.inner_time"):
        run_finite_width(wild, tmp_path / "a", infinite=infinite, display=QUIET)
    assert not (tmp_path / "a" / "results.json").exists()


@pytest.mark.parametrize("name", preset_names(FiniteWidthConfig))
def test_presets_are_read_and_say_what_they_are(name: str) -> None:
    config = read_config(FiniteWidthConfig, name)
    assert parse_as(FiniteWidthConfig, config.to_toml(), where="again") == config
    assert preset_text(name, FiniteWidthConfig).startswith("# ")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("flow.widhts=[1]", "flow has widths"),
        ("flo.end=1", "sections are data"),
        ("flow.widths=[64, 32]", "ascending"),
        ("network.name=some.module:net", "no widths"),
        ("attack.name=pgd-reference", "attack.name"),
        ("attack.loss=margin", "attack.loss"),
        ("attack.restarts=3", "attack.restarts"),
        ("attack.norm=l1", "attack.norm"),
        ("finite.batch=5000", "finite.batch is 5000"),
        ("finite.momentum=1.0", "finite.momentum"),
    ],
)
def test_an_impossible_configuration_names_its_key(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_config(FiniteWidthConfig, "digits", [override])
    with pytest.raises(ConfigError, match="no preset"):
        read_config(FiniteWidthConfig, "nothing-of-this-name")
    with pytest.raises(ConfigError, match="not valid TOML"):
        parse_as(FiniteWidthConfig, "[", where="text")


def test_captions_do_not_claim_what_the_numbers_do_not_show() -> None:
    def caption(*robust: float) -> str:
        points = [{"step": 10 * i, "robust": r, "robust_train": 0.9} for i, r in enumerate(robust, 1)]
        return training_caption({"seeds": {"0": points}}, 1000)

    assert caption(0.2, 0.3).startswith("No robust overfitting")
    assert "not shown" in caption(0.3, 0.29)
    assert caption(0.4, 0.2).startswith("Robust overfitting")
