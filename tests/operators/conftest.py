"""Stores that hold a given matrix."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.gram.fingerprint import make_fingerprint
from advntk_dist.gram.store import GramStore
from advntk_dist.networks import network

Stored = Callable[..., GramStore]


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """Write a symmetric matrix into a new store: stored(theta, tile), with a description of other images each time."""
    net, count = network("mlp-2"), itertools.count()

    def make(theta: NDArray[Any], tile: int, *, complete: bool = True) -> GramStore:
        images = np.random.default_rng(next(count)).integers(0, 256, (len(theta), 2, 2, 1), dtype=np.uint8)
        fingerprint = make_fingerprint(net, images, tile=tile, dtype=str(theta.dtype), kinds=("ntk",))
        store = GramStore.create_or_open(tmp_path_factory.mktemp("stored") / "gram.zarr", fingerprint, {})
        for t in list(store.grid)[: None if complete else -1]:
            store.write_tile("ntk", t, np.ascontiguousarray(theta[t.rows, t.cols]))
        return store

    return make
