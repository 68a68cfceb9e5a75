"""Gram matrices of runs filled in this process: a run that finds one starts no Ray."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from advntk_dist.config import RunConfig
from advntk_dist.gram import GramStore
from advntk_dist.gram.compute import TileComputer
from advntk_dist.gram.fingerprint import make_fingerprint
from advntk_dist.gram.images import compute_images
from advntk_dist.pipeline.problem import Problem


def fill_gram(config: RunConfig, folder: Path) -> Path:
    """Put the whole Gram matrix of a run into its directory; returns the directory."""
    problem, gram = Problem(config), config.gram
    net, images = problem.net, problem.train.raw
    fingerprint = make_fingerprint(net, images, tile=gram.tile, dtype=gram.dtype)
    folder.mkdir(parents=True, exist_ok=True)
    store = GramStore.create_or_open(folder / "gram.zarr", fingerprint, net.spec.as_dict())
    floats = compute_images(images, gram.tile, gram.dtype)
    compute = TileComputer(net, store.tile, ("ntk",), images.shape[1:], store.dtype)
    for t in store.grid:
        store.write_tile("ntk", t, compute(floats[t.rows], floats[t.cols], symmetric=t.on_diagonal)["ntk"])
    return folder


@pytest.fixture(autouse=True)
def no_ray(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that has not asked for the Ray of this session fails where a command asks for one."""
    if {"ray_cluster", "asks_for_ray"} & set(request.fixturenames):
        return

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("this must not start Ray")

    monkeypatch.setattr("advntk_dist.gram.cluster.have_ray", refuse)


@pytest.fixture
def asks_for_ray() -> None:
    """For a test of what is said where no Ray answers."""


def made_once(name: str, make: Callable[[Path], object], factory: pytest.TempPathFactory) -> Path:
    """A folder of the test session, made by whichever of its processes comes first: a copy of this process's own."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    whole = shared / f"{name}-made-once"
    with FileLock(f"{whole}.lock", timeout=600):
        if not whole.exists():
            begun = shared / f"{name}-begun"
            shutil.rmtree(begun, ignore_errors=True)
            make(begun)
            begun.rename(whole)
    return Path(shutil.copytree(whole, factory.mktemp(name) / name))
