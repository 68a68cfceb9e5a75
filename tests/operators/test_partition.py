"""Tiles dealt out to holders: all of them, equally many each, and close together; and products of some rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advntk_dist.grid import TileGrid
from advntk_dist.operators.resident import partition, rows_sent
from advntk_dist.operators.tiled import RUN_TILES, Rows


@settings(deadline=None)
@given(n=st.integers(1, 400), tile=st.integers(1, 60), data=st.data())
def test_every_tile_is_dealt_once_and_evenly(n: int, tile: int, data: st.DataObject) -> None:
    grid = TileGrid.square(n, max(tile, n // 20))
    count = data.draw(st.integers(1, len(grid)))
    found = partition(grid, count)
    dealt = [t for part in found for run in part for t in run.tiles]
    assert len(found) == count
    assert sorted(dealt) == list(grid)
    sizes = [sum(len(run.tiles) for run in part) for part in found]
    assert min(sizes) >= 1
    assert max(sizes) <= len(grid) / count + 2
    for part in found:
        for run in part:
            assert len(run.tiles) <= RUN_TILES
            assert [(t.i, t.j) for t in run.tiles] == [
                (run.tiles[0].i, run.tiles[0].j + k) for k in range(len(run.tiles))
            ]


@settings(deadline=None)
@given(n=st.integers(1, 200), tile=st.integers(1, 30), count=st.integers(1, 12), seed=st.integers(0, 9))
def test_rows_that_are_touched_make_the_whole_product(n: int, tile: int, count: int, seed: int) -> None:
    grid, rng = TileGrid.square(n, max(tile, n // 20)), np.random.default_rng(seed)
    theta = rng.integers(-9, 9, (n, n)).astype(np.float64)
    theta += theta.T
    v, product = rng.integers(-9, 9, (n, 2)).astype(np.float64), np.zeros((n, 2))
    for part in partition(grid, min(count, len(grid))):
        rows = Rows.touched(t for run in part for t in run.tiles)
        assert all(a.stop < b.start for a, b in zip(rows.blocks, rows.blocks[1:], strict=False))
        small = np.zeros((len(rows), 2))
        for run in part:
            small[rows.within(run.rows)] += theta[run.rows, run.cols] @ v[run.cols]
            for t in run.tiles:
                if not t.on_diagonal:
                    small[rows.within(t.cols)] += theta[t.rows, t.cols].T @ v[t.rows]
        rows.add(small, product)
    np.testing.assert_array_equal(product, theta @ v)  # whole numbers: exact in any order


@pytest.mark.parametrize("count", [1, 4, 16, 64, 256, 1024])
def test_what_is_sent_grows_as_the_square_root_of_the_holders(count: int) -> None:
    n = 200_000
    sent = rows_sent(TileGrid.square(n, 2048), count) / n
    print(f"{count} holders send {sent:.2f} times the rows of the product")
    assert 1 <= sent <= max(1.0, 1.25 * math.sqrt(2 * count))
