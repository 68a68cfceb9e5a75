"""Gram matrices of runs filled in this process: a run that finds one starts no Ray."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from numpy.typing import NDArray

from advntk_dist.config import RunConfig
from advntk_dist.gram import GramStore
from advntk_dist.gram.build import open_for_build
from advntk_dist.gram.fingerprint import make_fingerprint
from advntk_dist.gram.verify import invalidate, verify_gram
from advntk_dist.gram.worker import Receipt, compute_tile
from advntk_dist.grid import Tile
from advntk_dist.kernels.nonfinite import compute_images
from advntk_dist.networks import Network
from advntk_dist.pipeline.context import Problem
from advntk_dist.storage.paths import Location


def build_gram_here(
    net: Network,
    x: NDArray[Any],
    *,
    store: Location,
    tile: int,
    dtype: str,
    on_progress: Callable[[int, int, Receipt | None], None] = lambda done, total, receipt: None,
    **_: Any,
) -> GramStore:
    """:func:`advntk_dist.build_gram` in this process: what is missing is computed, and nobody starts Ray."""
    opened = open_for_build(store, make_fingerprint(net, x, tile=tile, dtype=dtype), net.spec.as_dict(), x)
    invalidate(opened, [(d.kind, d.i, d.j) for d in verify_gram(opened).damaged])
    committed, total = int(opened.committed().sum()), len(opened.grid)
    on_progress(committed, total, None)
    for done, t in enumerate(fill_store(opened, net, x), committed + 1):
        on_progress(done, total, Receipt(t.i, t.j, 1, 0.0, 0.0, opened.tile**2 * opened.dtype.itemsize, "", 0, 0))
    return opened


def fill_store(
    store: GramStore,
    net: Network,
    x: NDArray[Any],
    columns: NDArray[Any] | None = None,
    places: Iterable[tuple[int, int]] | None = None,
) -> Iterator[Tile]:
    """Compute the tiles of a store that are missing, all or those of some places, and yield each that is written."""
    rows, others = (
        None if part is None else compute_images(part, store.tile, store.dtype.name) for part in (x, columns)
    )
    assert rows is not None
    committed, wanted = store.committed(), None if places is None else set(places)
    for t in store.grid:
        if not committed[t.i, t.j] and (wanted is None or (t.i, t.j) in wanted):
            for kind, values in compute_tile(store, t, net, rows, others).items():
                store.write_tile(kind, t, values)
            yield t


def fill_gram(config: RunConfig, folder: Path) -> Path:
    """Put the whole Gram matrix of a run into its directory; returns the directory."""
    problem, gram = Problem(config), config.gram
    folder.mkdir(parents=True, exist_ok=True)
    build_gram_here(problem.net, problem.train.raw, store=folder / "gram.zarr", tile=gram.tile, dtype=gram.dtype)
    return folder


def fill_matrices_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have matrices that a stage builds computed in this process."""
    monkeypatch.setattr("advntk_dist.pipeline.stages.build_gram", build_gram_here)


@contextmanager
def matrices_filled_here() -> Iterator[None]:
    """:func:`fill_matrices_here` for fixtures that live longer than a test."""
    with pytest.MonkeyPatch.context() as patch:
        fill_matrices_here(patch)
        yield


@pytest.fixture(autouse=True)
def no_ray(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that has not asked for the Ray of this session fails where a command asks for one."""
    if {"ray_cluster", "asks_for_ray"} & set(request.fixturenames):
        return

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("this must not start Ray")

    monkeypatch.setattr("advntk_dist.distributed.session.have_ray", refuse)


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
