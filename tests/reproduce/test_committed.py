"""Cells that a folder holds already: whose data they are of, and what is none."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from advntk_dist.data import load_dataset
from advntk_dist.errors import StoreDamagedError
from advntk_dist.progress import Display
from advntk_dist.reproduce.grid import Cell, Grid, GridPoint, Sizes, known_data, missing, read_cells

from . import command, files, request


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry run"])
@pytest.mark.parametrize("more", [(), ("--network", "mlp-3")], ids=["the same cells", "other cells"])
def test_cells_of_a_namesake_are_refused(
    more: tuple[str, ...],
    dry: tuple[str, ...],
    finished: Path,
    archive: Path,
    namesake: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(finished, tmp_path / "grid")
    before = files(tmp_path / "grid")
    assert command(*request(namesake, tmp_path / "grid"), *more, *dry) == 3
    stored, wanted = (f"small with fingerprint {load_dataset(str(p)).fingerprint[:12]}" for p in (archive, namesake))
    error = capsys.readouterr().err
    assert f"dataset differs: the store has '{stored}', this request has '{wanted}'; use another --out" in error
    assert files(tmp_path / "grid") == before


def test_a_dry_run_says_where_it_cannot_compare_data(finished: Path, tmp_path: Path) -> None:
    out = io.StringIO()
    grid = Grid([str(tmp_path / "small.npz")], ["mlp-2"], ["ntk"], [40], 1, Sizes())
    assert known_data(grid, finished, Display(Console(file=out, width=1000))) == {}
    assert out.getvalue().startswith("whether the cells of small in ")
    assert "small.npz" in out.getvalue().partition("is not known: ")[2]


def test_a_damaged_cell_is_named(tmp_path: Path) -> None:
    wanted = Cell(GridPoint("cifar10", "mlp-3", 0, Sizes()), 8, "pgd", "ntk")
    path = tmp_path / "cells" / f"{wanted.name}.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(StoreDamagedError, match=r"r8-pgd-ntk\.json: not valid JSON"):
        missing([[wanted]], tmp_path, {})


@pytest.mark.parametrize("content", ["{}", "[1]", '{"dataset": "cifar10"}'])
def test_a_cell_that_is_none_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "cells" / "a" / "b.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(StoreDamagedError, match=r"b\.json: .*remove it and run the same command again"):
        read_cells(tmp_path)


def test_cells_of_a_dataset_at_a_path_stay_in_the_folder(tmp_path: Path) -> None:
    for dataset, label in (("/a/images", "images"), ("./cifar10", "cifar10"), ("/a/small.npz", "small")):
        wanted = Cell(GridPoint(dataset, "mlp-3", 0, Sizes()), 8, "pgd", "ntk")
        assert wanted.path(tmp_path) == tmp_path / "cells" / f"{label}-mlp-3-n10000-2000-2000-s0" / "r8-pgd-ntk.json"
