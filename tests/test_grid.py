"""The grid of tiles covers a matrix exactly once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advntk_dist.grid import Tile, TileGrid, mirror, spans

SIZES = st.integers(1, 60)
TILES = st.integers(1, 70)


@given(SIZES, SIZES, TILES)
def test_rectangular_grid_covers_each_entry_once(rows: int, cols: int, tile: int) -> None:
    grid = TileGrid(rows, cols, tile)
    covered = np.zeros((rows, cols), int)
    for t in grid:
        covered[t.rows, t.cols] += 1
        assert covered[t.rows, t.cols].shape == t.shape
        assert 1 <= t.shape[0] <= tile
        assert 1 <= t.shape[1] <= tile
    assert (covered == 1).all()
    assert len(list(grid)) == len(grid) == grid.shape[0] * grid.shape[1]
    assert grid.pairs == rows * cols


@given(SIZES, SIZES, TILES, TILES)
def test_rectangular_tiles_cover_each_entry_once(rows: int, cols: int, tile: int, width: int) -> None:
    grid = TileGrid(rows, cols, tile, width=width)
    covered = np.zeros((rows, cols), int)
    for t in grid:
        covered[t.rows, t.cols] += 1
        assert 1 <= t.shape[0] <= tile
        assert 1 <= t.shape[1] <= width
    assert (covered == 1).all()
    assert len(list(grid)) == len(grid)


def test_rectangular_tiles_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least one column"):
        TileGrid(4, 4, 2, width=0)
    with pytest.raises(ValueError, match="square tiles"):
        TileGrid(4, 4, 2, symmetric=True, width=3)


@given(SIZES, TILES)
def test_symmetric_grid_covers_each_pair_once(n: int, tile: int) -> None:
    grid = TileGrid.square(n, tile)
    covered = np.zeros((n, n), int)
    for t in grid:
        assert t.i <= t.j
        assert t.on_diagonal == (t.i == t.j)
        covered[t.rows, t.cols] += 1
        if not t.on_diagonal:
            covered[t.cols, t.rows] += 1
    assert (covered == 1).all()
    assert len(list(grid)) == len(grid)
    assert grid.pairs == sum(t.shape[0] * t.shape[1] for t in grid)
    assert n * (n + 1) // 2 <= grid.pairs <= n * n


@given(SIZES, SIZES, TILES)
def test_tiles_are_found_by_their_place(rows: int, cols: int, tile: int) -> None:
    grid = TileGrid(rows, cols, tile)
    tiles = list(grid)
    assert tiles == sorted(tiles)
    for t in tiles:
        assert grid.at(t.i, t.j) == t
        assert (t.row_start, t.col_start) == (t.i * tile, t.j * tile)


@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 600])
def test_mirrored_matrix_is_symmetric_and_keeps_its_upper_part(n: int) -> None:
    matrix = np.random.default_rng(n).normal(size=(n, n))
    before = matrix.copy()
    mirror(matrix)
    assert (matrix == matrix.T).all()
    assert (np.triu(matrix) == np.triu(before)).all()


def test_ragged_edge() -> None:
    assert TileGrid.square(10, 4).at(1, 2) == Tile(1, 2, 4, 8, 8, 10)
    assert TileGrid.square(10, 4).at(2, 2).shape == (2, 2)


@pytest.mark.parametrize(("i", "j"), [(-1, 0), (0, -1), (3, 3), (0, 3), (1, 0)])
def test_places_outside_raise(i: int, j: int) -> None:
    with pytest.raises(IndexError, match="no tile"):
        TileGrid.square(10, 4).at(i, j)


@pytest.mark.parametrize(
    ("rows", "cols", "tile", "symmetric"), [(0, 1, 1, False), (1, 0, 1, False), (3, 3, 0, False), (3, 4, 2, True)]
)
def test_impossible_grids_raise(rows: int, cols: int, tile: int, symmetric: bool) -> None:
    with pytest.raises(ValueError, match="grid"):
        TileGrid(rows, cols, tile, symmetric)


@given(st.integers(0, 100), TILES)
def test_spans_cut_a_range(n: int, size: int) -> None:
    cut = spans(n, size)
    assert [i for s in cut for i in range(s.start, s.stop)] == list(range(n))
    assert all(s.stop - s.start == size for s in cut[:-1])


@pytest.mark.parametrize(("n", "size"), [(-1, 1), (5, 0), (5, -2)])
def test_impossible_spans_raise(n: int, size: int) -> None:
    with pytest.raises(ValueError, match="cannot cut"):
        spans(n, size)
