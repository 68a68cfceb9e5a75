"""`advntk reproduce`: the whole command on a small .npz file, its resumption, its tables and its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.config import load_config, paper
from advntk_dist.environment import environment
from advntk_dist.errors import ConfigError
from advntk_dist.pipeline.stages import OpenRun
from advntk_dist.reproduce import job
from advntk_dist.reproduce.grid import Cell, finite_settings

from . import TABLES, command, request


def test_every_cell_is_there_once_and_within_its_radius(finished: Path) -> None:
    cells = [json.loads(p.read_text()) for p in (finished / "cells").glob("*/*.json")]
    assert len({(c["seed"], c["attack"], c["method"]) for c in cells}) == len(cells) == 2 * 4
    for c in cells:
        assert 0 <= c["robust"] <= c["clean"] <= 1
        limit = c["radius"] / 255 * (1 if c["attack"] == "pgd" else 2)
        assert c["max_perturbation"] <= limit * (1 + 1e-5)
    assert not list((finished / "grams").glob("*.zarr"))


def test_table_holds_what_the_cells_hold(finished: Path) -> None:
    rows = json.loads((finished / "table.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["ntk", "early-stopped", "adv-ntk", "at"]
    kept = json.loads(next((finished / "cells").glob("*-s0/r40-pgd-adv-ntk.json")).read_text())
    assert rows[2]["pgd"]["clean"] == {"mean": pytest.approx(100 * kept["clean"]), "std": None, "interval": None}
    assert [row["width"] for row in rows] == [None, None, None, 256]
    assert "10 steps" in rows[3]["differs"]
    assert {row["data"] for row in rows} == {kept["data"]}
    assert json.loads((finished / "table.json").read_text())["environment"] == kept["environment"] == environment()


def test_a_killed_grid_goes_on_to_the_same_table(
    finished: Path, matrices_filled: None, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = job.compute
    done: list[Cell] = []
    alive = 3

    def dies(run: OpenRun, cell: Cell) -> dict[str, Any]:
        if len(done) == alive:
            raise KeyboardInterrupt
        done.append(cell)
        return compute(run, cell)

    monkeypatch.setattr(job, "compute", dies)
    assert command(*request(archive, tmp_path)) == 1
    assert not (tmp_path / "table.md").exists()
    assert list((tmp_path / "grams").glob("*-s0.zarr"))  # kept for the cells that are left
    alive = 99
    assert command(*request(archive, tmp_path)) == 0
    assert len(done) == len(set(done)) == 8
    for name in TABLES:
        assert (tmp_path / name).read_text() == (finished / name).read_text()


def test_a_finished_grid_does_nothing(finished: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "compute", lambda run, cell: pytest.fail("computed again"))
    assert command(*request(archive, finished)) == 0


def test_dry_run_lists_cells_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--method", "adv-ntk", "--radius", "4/255", "--out", str(tmp_path / "no"), "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "r4-pgd-reference-adv-ntk" in shown
    assert "60 of 60 cells to do" in shown  # early stopping comes with it
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--network", "mlp-x"), "--network: no network 'mlp-x'"),
        (("--network", "package:net"), "--network package:net: give mlp-x"),
        (("--method", "sgd"), "--method sgd: there are ntk"),
        (("--attack", "fgsm"), "--attack fgsm: there are pgd"),
        (("--radius", "big"), "--radius big: give a fraction"),
        (("--radius", "0"), "--radius: must be above 0"),
        (("--seeds", "0"), "--seeds is 0"),
        (("--n-train", "1"), "--n-train is 1"),
        (("--dataset", "cifar10,svhn", "--data", "here"), "--data: one path"),
        (("--dataset", "a/small.npz,b/small.npz"), "--dataset: two are called small"),
        (("--workers", "0"), "--workers"),
        (("--dataset", "no-such-set"), "no-such-set"),
        (("--data", "/no/such/place"), "/no/such/place"),
    ],
)
def test_wrong_requests_are_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments, "--out", str(tmp_path / "out")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_too_many_images_are_refused(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*request(archive, tmp_path / "out"), "--n-train", "5000") == 2
    assert "data.n_train" in capsys.readouterr().err


def test_presets_have_the_settings_of_the_paper() -> None:
    assert len(paper.names()) == len({load_config(name).to_toml() for name in paper.names()}) == 48
    config = load_config("paper/cifar10-mlp-5-r8")
    assert (config.data.n_train, config.data.n_val) == (10_000, 2_000)
    assert (config.network.name, config.network.W_std, config.network.b_std) == ("mlp-5", 1.76, 0.18)
    assert (config.attack.name, config.attack.steps) == ("pgd", 10)
    assert config.attack.radius == pytest.approx(8 / 255)
    assert config.attack.step_size == pytest.approx(1.6 / 255)
    assert (config.train.steps, config.train.lr, config.train.batch) == (50, 0.1, 128)
    assert load_config("paper/svhn-cnn-3-r4").train.lr == 1
    assert load_config("paper/svhn-resnet-34-r4").train.lr == 1e-6
    with pytest.raises(ConfigError, match="no preset 'paper/cifar10-mlp-6-r8'"):
        load_config("paper/cifar10-mlp-6-r8")


def test_milestones_shrink_with_the_steps() -> None:
    full, short = finite_settings(20_000, 0), finite_settings(2_000, 1)
    assert (full.width, full.lr, full.lr_every, full.momentum, full.weight_decay) == (256, 0.1, 8_000, 0.9, 5e-4)
    assert (short.steps, short.lr_every, short.seed) == (2_000, 800, 1)
