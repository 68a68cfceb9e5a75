"""Requests of a small grid, and what its folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advntk_dist.cli import main
from advntk_dist.results.schema import CellResults

TABLES = ("table.md", "table.csv", "table.html", "table.json")


def command(*arguments: str) -> int:
    """The exit status of `advntk -q reproduce`."""
    with pytest.raises(SystemExit) as exit_:
        main(["-q", "reproduce", *arguments])
    return int(exit_.value.code or 0)


def request(archive: Path, out: Path) -> list[str]:
    small = "--network mlp-2 --radius 40/255 --seeds 1 --n-train 60 --n-val 20 --n-test 20 --at-steps 10"
    return ["--dataset", str(archive), *small.split(), "--out", str(out)]


def files(folder: Path) -> dict[Path, bytes]:
    """Everything that a folder holds."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cell(method: str, attack: str, seed: int, clean: float, robust: float, **other: Any) -> CellResults:
    """A committed cell."""
    usual = {"dataset": "cifar10", "data": "a", "network": "mlp-5", "radius": 8.0, "max_perturbation": 8 / 255}
    if method == "at":
        usual["width"] = 256
    sizes = {"n_train": 10_000, "n_val": 2_000, "n_test": 2_000, "at_steps": 20_000}
    found = {"method": method, "attack": attack, "seed": seed, "clean": clean, "robust": robust}
    intervals = {"clean_interval": (0, 1), "robust_interval": (0, 1), "seconds": 1, "environment": {}}
    return CellResults.model_validate(usual | sizes | found | intervals | other)
