"""The cells that a grid's folder holds, and whether they are of the data that are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advntk_dist.errors import StoreDamagedError, StoreMismatchError
from advntk_dist.results import schema

CELLS = "cells"
"""Folder of the cells below that of a grid."""

_SHOWN = 12
"""Digits of a fingerprint that people are shown."""


def read_cell(path: Path) -> dict[str, Any]:
    """A committed cell.

    Raises
    ------
    StoreDamagedError
        If it is not there, cannot be parsed, or was changed since it was written.
    """
    cell = schema.read(path, schema.CellResults, "remove it and run the same command again")
    if cell is None:
        raise StoreDamagedError(f"{path}: is not there; run the same command again")
    return cell


def read_cells(root: Path) -> dict[Path, dict[str, Any]]:
    """Every committed cell of a folder, in the order of the paths; errors as :func:`read_cell`."""
    return {path: read_cell(path) for path in sorted((root / CELLS).glob("*/*.json"))}


def refuse_other_data(root: Path, asked: Mapping[str, str]) -> None:
    """Hold every committed cell to the datasets that are asked for.

    Cells are named by the label of their dataset alone, and one label is one dataset in all of a folder: it is refused
    as well where the cells that are asked for are not there yet.

    Parameters
    ----------
    root
        Folder of the grid.
    asked
        Fingerprints of datasets (:attr:`advntk_dist.data.Dataset.fingerprint`) by label; cells of other labels pass.

    Raises
    ------
    StoreMismatchError
        If a cell was made from another dataset of the same label; names both.
    StoreDamagedError
        If a cell cannot be parsed.
    """
    for path, cell in read_cells(root).items():
        label = cell["dataset"]
        if label in asked and cell["data"] != asked[label]:
            stored, wanted = (f"{label} with fingerprint {short(f)}" for f in (cell["data"], asked[label]))
            raise StoreMismatchError(str(path), "dataset", stored, wanted)


def short(fingerprint: str) -> str:
    """The beginning of a fingerprint, for people."""
    return fingerprint[:_SHOWN]
