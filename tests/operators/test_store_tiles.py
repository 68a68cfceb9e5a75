"""Tiles read from a store: verified at the first reading, checked in length from then on."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from advntk_dist.errors import StoreDamagedError, StoreIncompleteError
from advntk_dist.gram.store import GramStore
from advntk_dist.operators import TiledOperator
from advntk_dist.operators.tiles import StoreTiles

N, TILE = 41, 12
_HALF = np.random.default_rng(0).standard_normal((N, N)).astype(np.float32)
THETA = _HALF + _HALF.T
Stored = Callable[..., GramStore]


@pytest.fixture
def store(stored: Stored) -> GramStore:
    return stored(THETA, TILE)


def _flip(store: GramStore, i: int, j: int) -> None:
    path = store.chunk_path("ntk", i, j)
    payload = bytearray(path.read_bytes())
    payload[40] ^= 1
    path.write_bytes(bytes(payload))


@pytest.mark.parametrize("rows", [1, 5, 12, 100])
def test_panels_put_together_are_the_matrix(store: GramStore, rows: int) -> None:
    tiles = StoreTiles(store)
    for _ in range(2):  # whole and verified, then panel by panel
        for t in store.grid:
            found = np.full(t.shape, np.nan, np.float32)
            for panel, values in tiles.panels(t, rows):
                assert values.shape[0] <= rows
                found[panel] = values
            np.testing.assert_array_equal(found, THETA[t.rows, t.cols])


def test_the_first_reading_verifies_and_later_ones_do_not_read_whole_tiles(
    store: GramStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[int, int]] = []
    whole = store.read_tile

    def read_tile(kind: str, i: int, j: int, verify: bool = True) -> object:
        assert verify
        reads.append((i, j))
        return whole(kind, i, j)

    monkeypatch.setattr(store, "read_tile", read_tile)
    operator = TiledOperator(store)
    for _ in range(3):
        operator.matmat(np.ones((N, 2)))
    assert sorted(reads) == [(t.i, t.j) for t in store.grid]


def test_a_tile_that_is_damaged_before_the_first_pass_is_named(store: GramStore) -> None:
    _flip(store, 1, 2)
    with pytest.raises(StoreDamagedError, match=r"tile \(1, 2\)"):
        TiledOperator(store).matmat(np.ones((N, 1)))


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_tile_that_is_cut_or_gone_between_passes_is_named(store: GramStore, harm: str) -> None:
    operator = TiledOperator(store)
    operator.matmat(np.ones((N, 1)))
    path = store.chunk_path("ntk", 0, 3)
    path.write_bytes(path.read_bytes()[:100]) if harm == "cut" else path.unlink()
    with pytest.raises(StoreDamagedError, match=r"tile \(0, 3\)"):
        operator.matmat(np.ones((N, 1)))


def test_a_tile_that_is_missing(stored: Stored) -> None:
    with pytest.raises(StoreIncompleteError):
        TiledOperator(stored(THETA, TILE, complete=False)).matmat(np.ones((N, 1)))


def test_reading_ahead_names_files_and_leaves_what_is_wrong_to_the_reader(
    store: GramStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: asked.append(arguments[-1]), raising=False)
    tiles = StoreTiles(store)
    tiles.expect(store.grid.at(0, 1))
    assert asked == [os.POSIX_FADV_WILLNEED]
    store.chunk_path("ntk", 0, 1).unlink()
    tiles.expect(store.grid.at(0, 1))
    assert len(asked) == 1
    monkeypatch.delattr(os, "posix_fadvise")
    tiles.expect(store.grid.at(0, 2))  # a system without such advice
