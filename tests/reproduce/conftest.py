"""A small .npz file, another of its name, and a finished grid, made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.filled import fill_matrices_here, made_once, matrices_filled_here
from tests.filled import no_ray as no_ray

from . import command, request


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small.npz"
    digits = load_digits()
    np.savez(path, x=(digits.images * 255 / 16).astype(np.uint8), y=digits.target)
    return path


@pytest.fixture(scope="session")
def namesake(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other images under the same file name."""
    path = tmp_path_factory.mktemp("elsewhere") / archive.name
    with np.load(archive) as held:
        np.savez(path, x=held["x"][::-1], y=held["y"][::-1])
    return path


@pytest.fixture(scope="session")
def finished(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        with matrices_filled_here():
            assert command(*request(archive, folder)) == 0

    return made_once("grid", make, tmp_path_factory)


@pytest.fixture
def matrices_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_matrices_here(monkeypatch)
