"""The one place that turns (n, tile) into slices.

A Gram matrix is cut into square tiles, other matrices into rectangles of one shape; the last row and column of tiles
may be ragged. A symmetric grid lists each tile on or above the diagonal once. No other module slices a matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MIRROR = 256
"""Edge of the blocks that a mirrored matrix is copied in: small enough that both stay in cache."""


@dataclass(frozen=True, order=True)
class Tile:
    """One tile: its place (i, j) in the grid and the rows and columns it covers."""

    i: int
    j: int
    row_start: int
    row_stop: int
    col_start: int
    col_stop: int

    @property
    def rows(self) -> slice:
        """Rows of the matrix that the tile covers."""
        return slice(self.row_start, self.row_stop)

    @property
    def cols(self) -> slice:
        """Columns of the matrix that the tile covers."""
        return slice(self.col_start, self.col_stop)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the tile, smaller than (tile, tile) at a ragged edge."""
        return self.row_stop - self.row_start, self.col_stop - self.col_start

    @property
    def on_diagonal(self) -> bool:
        """Whether the tile lies on the diagonal of the grid."""
        return self.i == self.j


def spans(n: int, size: int) -> list[slice]:
    """Cut range(n) into consecutive slices of ``size``, the last one possibly shorter."""
    if n < 0 or size < 1:
        raise ValueError(f"cannot cut {n} items into spans of {size}; need n >= 0 and size >= 1")
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


@dataclass(frozen=True)
class TileGrid:
    """Tiles of a (rows, cols) matrix.

    Parameters
    ----------
    rows, cols
        Shape of the matrix.
    tile
        Edge of a tile, in entries.
    symmetric
        Keep only tiles on and above the diagonal; needs rows == cols and square tiles.
    width
        Columns of a tile that is no square; by default its rows, ``tile``.
    """

    rows: int
    cols: int
    tile: int
    symmetric: bool = False
    width: int | None = None

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1 or self.tile < 1:
            raise ValueError(
                f"a grid needs at least one row, one column and a tile of at least 1, "
                f"got {self.rows} x {self.cols} with tile {self.tile}"
            )
        if self.across < 1:
            raise ValueError(f"a tile needs at least one column, got a width of {self.width}")
        if self.symmetric and self.across != self.tile:
            raise ValueError(f"a symmetric grid needs square tiles, got {self.tile} x {self.across}")
        if self.symmetric and self.rows != self.cols:
            raise ValueError(f"a symmetric grid must be square, got {self.rows} x {self.cols}")

    @classmethod
    def square(cls, n: int, tile: int) -> TileGrid:
        """The symmetric grid of an (n, n) Gram matrix."""
        return cls(n, n, tile, symmetric=True)

    @property
    def across(self) -> int:
        """Columns of a whole tile."""
        return self.tile if self.width is None else self.width

    @property
    def shape(self) -> tuple[int, int]:
        """Number of tiles along rows and columns."""
        return -(-self.rows // self.tile), -(-self.cols // self.across)

    def __len__(self) -> int:
        down, across = self.shape
        return down * (down + 1) // 2 if self.symmetric else down * across

    def at(self, i: int, j: int) -> Tile:
        """The tile at place (i, j).

        Raises
        ------
        IndexError
            If (i, j) is outside the grid, or below the diagonal of a symmetric one.
        """
        down, across = self.shape
        if not (0 <= i < down and 0 <= j < across) or (self.symmetric and i > j):
            raise IndexError(f"no tile ({i}, {j}) in a grid of {down} x {across} tiles")
        t, w = self.tile, self.across
        return Tile(i, j, i * t, min((i + 1) * t, self.rows), j * w, min((j + 1) * w, self.cols))

    def __iter__(self) -> Iterator[Tile]:
        down, across = self.shape
        for i in range(down):
            for j in range(i if self.symmetric else 0, across):
                yield self.at(i, j)

    @property
    def pairs(self) -> int:
        """Entries computed: distinct pairs, with each diagonal tile of a symmetric grid counted whole."""
        return sum(t.shape[0] * t.shape[1] for t in self)


def mirror(matrix: NDArray[Any]) -> None:
    """Copy the part of a square matrix above its diagonal to below it, in place."""
    for t in TileGrid.square(len(matrix), _MIRROR):
        block = matrix[t.rows, t.cols]
        if t.on_diagonal:
            np.copyto(block, block.T.copy(), where=np.tri(len(block), k=-1, dtype=bool))
        else:
            matrix[t.cols, t.rows] = block.T
