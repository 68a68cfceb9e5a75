"""The arithmetic of one pass: runs of tiles times a block of vectors, both halves of each tile in one reading."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from advntk_dist.grid import Tile, TileGrid, spans
from advntk_dist.operators.rows import Array, Rows
from advntk_dist.operators.tiles import Tiles

RUN_TILES = 8
"""Tiles of one row that make one task."""

NARROW = 64
"""Blocks of up to this many columns."""

_NARROW_BLOCK = (128, 512)
_UNPACKED = 10**6
_WIDE_BLOCK = (256, 2048)
"""Rows and columns that are widened to float64 at once. For narrow blocks of vectors they stay in a core's own cache,
and are so few that OpenBLAS takes the product without packing (rows x columns x vectors up to a million); for wide
ones packing pays, and wants more at once."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """A block of vectors in both memory orders, as the two products of a tile want it.

    Attributes
    ----------
    v
        (n, k), C order.
    transposed
        (k, n), C order.
    """

    v: Array
    transposed: Array

    @classmethod
    def of(cls, v: Array) -> Vectors:
        """Both orders of v (n, k)."""
        return cls(np.ascontiguousarray(v), np.ascontiguousarray(v.T))

    @property
    def columns(self) -> int:
        """Number of vectors."""
        return self.v.shape[1]


@dataclass(frozen=True)
class Run:
    """Neighbouring tiles of one row of the grid: one task."""

    tiles: tuple[Tile, ...]

    @property
    def rows(self) -> slice:
        """Rows of the matrix that the tiles share."""
        return self.tiles[0].rows

    @property
    def cols(self) -> slice:
        """Columns of the matrix that the tiles cover."""
        return slice(self.tiles[0].col_start, self.tiles[-1].col_stop)


def runs(grid: TileGrid, length: int = RUN_TILES) -> list[Run]:
    """The stored tiles of a symmetric grid, row by row, in runs of at most ``length``."""
    return runs_of(grid, length)


def runs_of(tiles: Iterable[Tile], length: int = RUN_TILES) -> list[Run]:
    """Some tiles, given row by row, in runs of at most ``length`` neighbours."""
    found: list[list[Tile]] = []
    for t in tiles:
        if found and len(found[-1]) < length and (found[-1][-1].i, found[-1][-1].j + 1) == (t.i, t.j):
            found[-1].append(t)
        else:
            found.append([t])
    return [Run(tuple(run)) for run in found]


@dataclass(frozen=True, eq=False)
class Part:
    """What a run adds to the product: (rows, k) through its tiles, (k, columns) through their transposes."""

    run: Run
    direct: Array
    mirrored: Array

    def add_to(self, product: Array, rows: Rows) -> None:
        """Add to a product of which only these rows are kept, (len(rows), k)."""
        product[rows.within(self.run.rows)] += self.direct
        product[rows.within(self.run.cols)] += self.mirrored.T


def block_shape(grid: TileGrid, k: int) -> tuple[int, int]:
    """Rows and columns of what is widened to float64 at once, for k vectors."""
    rows, columns = _NARROW_BLOCK if k <= NARROW else _WIDE_BLOCK
    if k <= NARROW:
        rows = min(rows, _UNPACKED // (columns * max(1, k)) // 8 * 8)
    tile = min(grid.tile, grid.rows)
    return min(rows, tile), min(columns, tile)


def task_bytes(grid: TileGrid, k: int, itemsize: int) -> int:
    """Memory of one task in flight, in bytes: a tile read whole, a block in float64, and the sums of its run."""
    tile = min(grid.tile, grid.rows)
    rows, columns = block_shape(grid, k)
    sums = 8 * k * (tile * (RUN_TILES + 2) + rows + columns)
    return 2 * tile * tile * itemsize + rows * (tile * itemsize + 8 * columns) + sums


def run_product(tiles: Tiles, run: Run, vectors: Vectors) -> Part:
    """The part of a run; sums are float64 and always in the same order, so that a product repeats to the last bit."""
    k, (rows, columns) = vectors.columns, block_shape(tiles.grid, vectors.columns)
    height, width = run.rows.stop - run.rows.start, run.cols.stop - run.cols.start
    direct, mirrored = np.zeros((height, k)), np.zeros((k, width))
    from_rows = np.ascontiguousarray(vectors.transposed[:, run.rows])
    buffers = np.empty(rows * columns), np.empty(rows * k), np.empty(k * columns)
    for t, following in zip(run.tiles, (*run.tiles[1:], None), strict=True):
        if following is not None:
            tiles.expect(following)
        below = mirrored[:, t.col_start - run.cols.start : t.col_stop - run.cols.start]
        right = vectors.v[t.cols]
        for panel, values in tiles.panels(t, rows):
            left, beside = from_rows[:, panel], direct[panel]
            for part in spans(t.shape[1], columns):
                piece = values[:, part]
                wide, through, across = (
                    buffer[: a * b].reshape(a, b)
                    for buffer, (a, b) in zip(
                        buffers, (piece.shape, (piece.shape[0], k), (k, piece.shape[1])), strict=True
                    )
                )
                np.copyto(wide, piece)
                beside += np.matmul(wide, right[part], out=through)
                if not t.on_diagonal:
                    below[:, part] += np.matmul(left, wide, out=across)
    return Part(run, direct, mirrored)


def product_of(parts: Iterable[Part], rows: Rows, k: int) -> Array:
    """Some rows of the product, (len(rows), k), from the parts, added in the order in which they come."""
    product = np.zeros((len(rows), k))
    for part in parts:
        part.add_to(product, rows)
    return product
