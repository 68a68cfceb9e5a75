"""`advntk reproduce`: the whole command on a small .npz file, its resumption, its tables and its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from advntk_dist.cli import main
from advntk_dist.config import load_config
from advntk_dist.errors import ConfigError, StoreDamagedError
from advntk_dist.reproduce import paper
from advntk_dist.reproduce.grid import Cell, Sizes, Subject
from advntk_dist.reproduce.laboratory import Laboratory, finite_settings
from advntk_dist.reproduce.table import cells_of, collect, markdown

TABLES = ("table.md", "table.csv", "table.html", "table.json")


def command(*arguments: str) -> int:
    """The exit status of `advntk -q reproduce`."""
    with pytest.raises(SystemExit) as exit_:
        main(["-q", "reproduce", *arguments])
    return int(exit_.value.code or 0)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small.npz"
    digits = load_digits()
    np.savez(path, x=(digits.images * 255 / 16).astype(np.uint8), y=digits.target)
    return path


def request(archive: Path, out: Path) -> list[str]:
    small = "--network mlp-2 --radius 40/255 --seeds 1 --n-train 60 --n-val 20 --n-test 20 --at-steps 10"
    return ["--dataset", str(archive), *small.split(), "--out", str(out)]


@pytest.fixture(scope="module")
def finished(archive: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    out = tmp_path_factory.mktemp("grid")
    assert command(*request(archive, out)) == 0
    return out


def cell(method: str, attack: str, seed: int, clean: float, robust: float, **other: Any) -> dict[str, Any]:
    """A committed cell."""
    usual = {"dataset": "cifar10", "network": "mlp-5", "radius": 8.0, "max_perturbation": 8 / 255}
    sizes = {"n_train": 10_000, "n_val": 2_000, "n_test": 2_000, "at_steps": 20_000}
    found = {"method": method, "attack": attack, "seed": seed, "clean": clean, "robust": robust}
    return usual | sizes | found | other


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
    assert rows[2]["pgd"]["clean"] == {"mean": pytest.approx(100 * kept["clean"]), "std": None}
    assert "10 steps" in rows[3]["differs"]


def test_a_killed_grid_goes_on_to_the_same_table(
    finished: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Laboratory.run
    done: list[Cell] = []
    alive = 3

    def dies(self: Laboratory, cell: Cell) -> dict[str, Any]:
        if len(done) == alive:
            raise KeyboardInterrupt
        done.append(cell)
        return run(self, cell)

    monkeypatch.setattr(Laboratory, "run", dies)
    assert command(*request(archive, tmp_path)) == 1
    assert not (tmp_path / "table.md").exists()
    assert list((tmp_path / "grams").glob("*-s0.zarr"))  # kept for the cells that are left
    alive = 99
    assert command(*request(archive, tmp_path)) == 0
    assert len(done) == len(set(done)) == 8
    for name in TABLES:
        assert (tmp_path / name).read_text() == (finished / name).read_text()


def test_a_finished_grid_does_nothing(finished: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Laboratory, "run", lambda self, cell: pytest.fail("computed again"))
    assert command(*request(archive, finished)) == 0


def test_dry_run_lists_cells_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--method", "adv-ntk", "--radius", "4/255", "--out", str(tmp_path / "no"), "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "r4-pgd-reference-adv-ntk" in shown
    assert "60 of 60 cells to do" in shown  # early stopping comes with it
    assert not (tmp_path / "no").exists()


def test_markdown_is_as_it_should_be() -> None:
    cells = [
        cell("adv-ntk", "pgd", 0, 0.40, 0.24),
        cell("adv-ntk", "pgd", 1, 0.42, 0.25),
        cell("adv-ntk", "pgd-reference", 0, 0.41, 0.30),
        cell("at", "pgd", 0, 0.45, 0.2, at_steps=2_000, n_train=500),
    ]
    lines = markdown(*cells_of(collect(cells))).splitlines()
    assert lines[0] == (
        "| dataset | network | radius | method | clean, pgd | robust, pgd | clean, pgd-reference "
        "| robust, pgd-reference | seeds | n_train | n_test | differs from the paper |"
    )
    assert lines[2] == (
        "| cifar10 | mlp-5 | 8/255 | at | 45.0 | 20.0 |  |  | 1 and 0 | 500 | 2000 | 500 training images instead of "
        "10,000; 2,000 steps (milestones in proportion) instead of 20,000 |"
    )
    assert lines[3] == (
        "| cifar10 | mlp-5 | 8/255 | adv-ntk | 41.0 ± 1.4 | 24.5 ± 0.7 | 41.0 | 30.0 | 2 and 1 | 10000 | 2000 | no |"
    )
    assert "also trained" in lines[-1]


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


def test_a_damaged_cell_is_named(tmp_path: Path) -> None:
    wanted = Cell(Subject("cifar10", "mlp-3", 0, Sizes()), 8, "pgd", "ntk")
    path = tmp_path / "cells" / f"{wanted.name}.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(StoreDamagedError, match=r"r8-pgd-ntk\.json: not valid JSON"):
        wanted.read(tmp_path)


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
