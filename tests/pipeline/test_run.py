from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import advntk_dist as advntk
from advntk_dist.data import split
from advntk_dist.dynamics import ATDynamics
from advntk_dist.errors import RequestError, SolverError, StoreDamagedError, StoreMismatchError
from advntk_dist.gram import WorkerPool, build_gram
from advntk_dist.pipeline import stages
from advntk_dist.pipeline.directory import RunDirectory, digest
from advntk_dist.pipeline.evaluate import evaluate_again
from advntk_dist.pipeline.gram import build_gram_only, verify
from advntk_dist.pipeline.run import rebuild_report, run
from advntk_dist.progress import Display
from advntk_dist.storage.records import read_group
from tests.pipeline.conftest import events_of, results_of, small

QUIET = Display(quiet=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_results_hold_what_the_contract_names(finished: Path) -> None:
    results = results_of(finished)
    assert {"n_train", "n_val", "n_test", "network", "dataset", "attack", "methods", "seconds", "environment"} <= set(
        results
    )
    assert {"name", "radius", "steps", "max_perturbation"} <= set(results["attack"])
    assert {"gram", "train", "evaluate"} <= set(results["seconds"])
    assert set(results["methods"]) == {"ntk", "early_stopped", "adv_ntk"}
    for method in results["methods"].values():
        for name in ("clean", "robust"):
            low, high = method[f"{name}_interval"]
            assert 0 <= low <= method[name] <= high <= 1
        assert method["n_test"] == 60
    assert results["attack"]["max_perturbation"] <= results["attack"]["radius"] + 1e-6
    assert results["methods"]["early_stopped"]["t"] in results["curve"]["times"]


def test_every_promised_file_is_there(finished: Path) -> None:
    for name in ("config.toml", "gram.zarr", "train.zarr", "results.json", "events.jsonl", "report.html"):
        assert (finished / name).exists(), name
    plots = ["degeneration", "examples", "extremes", "methods", "radius", "spectrum", "training", "varpi"]
    for ending in ("svg", "csv"):
        assert sorted(p.stem for p in finished.glob(f"*.{ending}")) == plots


def test_the_chosen_time_has_the_best_robust_validation_accuracy(finished: Path) -> None:
    results = results_of(finished)
    robust = [row["robust"] for row in results["curve"]["validation"]]
    chosen = results["curve"]["times"].index(results["methods"]["early_stopped"]["t"])
    assert chosen == robust.index(max(robust))


def test_numbers_agree_with_the_public_interface(finished: Path) -> None:
    """The pipeline is the public pieces put together: do it by hand and compare."""
    data, c = advntk.load_dataset("digits"), small()
    parts = split(data, n_train=c.data.n_train, n_val=c.data.n_val, n_test=c.data.n_test, seed=c.data.seed)
    net = advntk.network("mlp-2")
    x, y = data.x[parts.train], np.eye(10)[data.y[parts.train]]
    theta = np.asarray(advntk.open_gram(finished / "gram.zarr"))
    # float32 kernels of an image with itself carry the rounding of an angle near 0, which depends on the blocks.
    np.testing.assert_allclose(theta, net.ntk(x, x), rtol=2e-4)
    varpi = np.asarray(zarr.open_array(finished / "train.zarr" / "varpi", mode="r"))[-1]
    coefficients = advntk.ATDynamics(theta, y).coefficients(varpi).value
    predictor = advntk.KernelPredictor(net, x, coefficients)
    x_test, y_test = data.x[parts.test], data.y[parts.test]
    adversarial = advntk.pgd(
        predictor, x_test, y_test, radius=c.attack.radius, steps=c.attack.steps, loss=c.attack.loss
    )
    clean = predictor.predict(x_test).argmax(axis=1) == y_test
    robust = clean & (predictor.predict(adversarial).argmax(axis=1) == y_test)
    row = results_of(finished)["methods"]["adv_ntk"]
    assert row["clean"] == pytest.approx(clean.mean())
    assert row["robust"] == pytest.approx(robust.mean(), abs=1.5 / len(y_test))


def test_a_second_run_changes_nothing(finished: Path) -> None:
    before = contents(finished)
    outcome = run(small(), finished, display=QUIET)
    assert not outcome.worked
    assert contents(finished) == before


def test_another_configuration_is_refused_by_name(finished: Path) -> None:
    other = small("train.lr=3")
    with pytest.raises(StoreMismatchError, match=r"train\.lr") as caught:
        run(other, finished, display=QUIET)
    assert caught.value.exit_code == 3


def test_how_it_is_computed_may_change_between_starts(finished: Path) -> None:
    other = small("solver.memory=1GiB", "gram.workers=2", "evaluation.workers=2")
    assert digest(other) == digest(small())
    assert not run(other, finished, display=QUIET).worked


def test_gram_build_grows_a_matrix_that_nothing_rests_on_to_the_store_that_run_makes(
    built: Path,
    tmp_path: Path,
    ray_cluster: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "g"
    with WorkerPool() as pool:  # one worker for both, which takes seconds to start
        monkeypatch.setattr(stages, "build_gram", lambda *given, address, **told: build_gram(*given, pool=pool, **told))
        first = build_gram_only(small("data.n_train=160"), folder, display=QUIET)
        assert len(first.grid) == 3
        assert verify(folder, tiles=1).values is not None
        grown = build_gram_only(small(), folder, display=QUIET)
    assert {t for t in grown.grid if grown.commits["ntk"].intact(t.i, t.j)} == set(grown.grid)
    kept = [e for e in events_of(folder) if e["event"] == "tile"]
    assert [e["total"] for e in kept] == [3] * 3 + [6] * 3
    assert (np.asarray(advntk.open_gram(grown.path)) == np.asarray(advntk.open_gram(built / "gram.zarr"))).all()
    with pytest.raises(StoreMismatchError, match=r"data\.n_train"):  # it does not shrink
        build_gram_only(small("data.n_train=160"), folder, display=QUIET)


@pytest.mark.parametrize("begun", [False, True])
def test_what_the_matrix_does_not_depend_on_may_change_while_nothing_rests_on_it(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """As after a solve that failed, with the advice that its message gave."""
    folder = shutil.copytree(filled, tmp_path / "run")
    if begun:

        def fails(*_: Any, **__: Any) -> Any:
            raise SolverError("here the solve fails; raise solver.ridge")

        with monkeypatch.context() as patch:
            patch.setattr(ATDynamics, "trajectory", fails)
            with pytest.raises(SolverError):
                run(small(), folder, display=QUIET)
        assert (folder / "dynamics.zarr").exists()
    with RunDirectory.at(folder).claimed(small()):
        pass
    for key in ("network.W_std=1.5", "data.seed=1", "gram.tile=60", "data.n_train=180"):
        with pytest.raises(StoreMismatchError, match=key.split("=")[0].replace(".", r"\.")):
            run(small(key), folder, display=QUIET)
    other = ("solver.ridge=0.01", "attack.radius=0.1", "train.steps=2", "evaluation.times=[0.1]")
    found = run(small(*other), folder, display=QUIET)
    assert found.results["attack"]["radius"] == 0.1
    assert "ridge = 0.01" in (folder / "config.toml").read_text()
    with pytest.raises(StoreMismatchError, match=r"solver\.ridge.*keeps the matrix"):
        run(small(), folder, display=QUIET)
    moved = tmp_path / "other"
    moved.mkdir()
    shutil.copytree(folder / "gram.zarr", moved / "gram.zarr")
    monkeypatch.setattr(stages, "build_gram", no_tile(build_gram))
    assert run(small(), moved, display=QUIET).worked


def no_tile(build: Any) -> Any:
    """A build that has nothing left to compute."""

    def built(*given: Any, on_progress: Any, **told: Any) -> Any:
        def progress(done: int, total: int, receipt: Any) -> None:
            assert receipt is None, "a tile was computed"
            on_progress(done, total, receipt)

        return build(*given, on_progress=progress, **told)

    return built


def test_the_curve_may_take_fewer_images_than_the_methods(finished: Path, filled: Path, tmp_path: Path) -> None:
    config = small("evaluation.curve=20")
    results = run(config, shutil.copytree(filled, tmp_path / "short"), display=QUIET).results
    whole = results_of(finished)
    assert [row["n_test"] for row in results["curve"]["test"]] == [20, 20]
    assert results["curve"]["validation"] == whole["curve"]["validation"]
    assert results["methods"] == whole["methods"]


def test_a_run_that_is_trained_does_not_grow(finished: Path) -> None:
    with pytest.raises(StoreMismatchError, match=r"data\.n_train"):
        build_gram_only(small("data.n_train=230"), finished, display=QUIET)


def test_a_run_that_builds_its_matrix_is_the_run_that_finds_it(built: Path, finished: Path) -> None:
    """To rounding: two processes computed the tiles."""
    ours, theirs = (np.asarray(advntk.open_gram(folder / "gram.zarr")) for folder in (built, finished))
    np.testing.assert_allclose(ours, theirs, rtol=2e-4)
    own, other = (results_of(folder)["methods"] for folder in (built, finished))
    for method, row in own.items():
        for name in ("clean", "robust"):
            assert row[name] == pytest.approx(other[method][name], abs=1.5 / 60)


def test_peak_memory_is_that_of_processes(built: Path) -> None:
    results = results_of(built)
    for who in ("driver", "worker"):
        assert 50e6 < results["peak_bytes"][who] < 20e9


def test_events_tell_the_story_of_the_build(built: Path) -> None:
    events = events_of(built)
    names = [e["event"] for e in events]
    assert names.index("worker_started") < names.index("plan") < names.index("worker_ready") < names.index("tile")
    plan = events[names.index("plan")]["plan"]
    assert plan["tiles"] == 6
    assert plan["memory_bytes"] > plan["worker_bytes"] > 0
    assert plan["seconds"] > 0
    tiles = [e["receipt"] for e in events if e["event"] == "tile"]
    assert {(t["i"], t["j"]) for t in tiles} == {(i, j) for i in range(3) for j in range(i, 3)}
    assert all(t["peak_bytes"] <= plan["worker_bytes"] + plan["image_bytes"] for t in tiles)


def test_a_stronger_attack_is_added_beside_the_results(copy: Path) -> None:
    before = (copy / "results.json").read_bytes()
    path, again = evaluate_again(copy, "pgd", ["radius=0.05"], display=QUIET)
    assert path.exists()
    assert again["attack"]["step_size"] == pytest.approx(0.01)
    assert again["attack"]["max_perturbation"] <= 0.05 + 1e-6
    assert again["methods"]["ntk"]["robust"] >= json.loads(before)["methods"]["ntk"]["robust"]
    assert (copy / "results.json").read_bytes() == before
    with pytest.raises(RequestError, match="attack"):
        evaluate_again(copy, "no-such-attack", display=QUIET)


def test_the_report_can_be_written_again(copy: Path) -> None:
    before = (copy / "report.html").read_bytes()
    (copy / "report.html").write_text("gone")
    rebuild_report(copy, display=QUIET)
    assert (copy / "report.html").read_bytes() == before


def test_the_report_says_when_and_on_which_data(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    events = events_of(finished)
    began = datetime.fromtimestamp(events[0]["time"], UTC)
    assert f"<dt>Started</dt><dd>{began:%Y-%m-%d %H:%M} UTC</dd>" in page
    stored = read_group(next(path for path in (finished / "evaluation.zarr").iterdir() if path.is_dir()))[1]
    assert f"<dt>Data fingerprint</dt><dd>{stored['data'][:12]}</dd>" in page
    assert "Chance: " in page


def test_an_unfinished_run_has_no_report(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(small().to_toml())
    with pytest.raises(RequestError, match="not finished"):
        rebuild_report(tmp_path)
    with pytest.raises(RequestError, match="not a run directory"):
        rebuild_report(tmp_path / "nowhere")


def test_a_damaged_configuration_is_stored_data_that_is_damaged(tmp_path: Path) -> None:
    for content in ("", "# a comment\n", "[data\n", "[data]\nn_train = 200\n\udcff"):
        (tmp_path / "config.toml").write_text(content, errors="surrogateescape")
        with pytest.raises(StoreDamagedError, match=r"config\.toml: damaged .*; the command that started the run"):
            RunDirectory.at(tmp_path).stored_config()
        with RunDirectory.at(tmp_path).claimed(small()):
            assert RunDirectory.at(tmp_path).stored_config() == small()
    (tmp_path / "config.toml").write_text((tmp_path / "config.toml").read_text().replace("200", "201"))
    with pytest.raises(StoreDamagedError, match="its checksum differs"):
        RunDirectory.at(tmp_path).stored_config()


@pytest.mark.parametrize("with_results", [True, False], ids=["finished", "without results"])
def test_all_that_is_damaged_is_computed_again(finished: Path, copy: Path, with_results: bool) -> None:
    """One file alone is harmed in test_damage.py."""
    if not with_results:
        (copy / "results.json").unlink()
    for chunk in (
        *("train.zarr/state/c/4/0", "dynamics.zarr/uniform/c/1/0/0", "dynamics.zarr/adv_ntk/c/0/0/0"),
        *("evaluation.zarr/*/test_adv_ntk/c/1/0", "evaluation.zarr/*/validation_t0/c/0/0"),
    ):
        (path,) = copy.glob(chunk)
        damaged = bytearray(path.read_bytes())
        damaged[10] ^= 1
        path.write_bytes(bytes(damaged))
    before = run(small(), finished, display=QUIET).results
    outcome = run(small(), copy, display=QUIET)
    assert outcome.worked
    for key in ("methods", "paired", "curve", "attack"):
        assert outcome.results[key] == before[key]
