"""The stored half of a Gram matrix, read tile by tile by Dask threads: memory stays at a few tiles."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from dask.threaded import get as threaded_get
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from advntk_dist.grid import Tile, TileGrid, spans
from advntk_dist.operators.base import GramOperator

_STRIP = 256
"""Rows of a float32 tile that are widened to float64 at once."""


class TileSource(Protocol):
    """Where tiles on and above the diagonal come from: a Gram store."""

    @property
    def grid(self) -> TileGrid:
        """The symmetric grid of the matrix."""
        ...

    def read_tile(self, kind: str, i: int, j: int) -> NDArray[Any]:
        """The values of tile (i, j), i <= j."""
        ...


class TiledOperator(GramOperator):
    """Products through a Dask graph with one task a stored tile.

    A tile above the diagonal serves both its halves in one read: T V_j for rows i, and T^T V_i for rows j.

    Parameters
    ----------
    source
        The Gram store.
    kind
        Which kernel of the store.
    threads
        Dask threads; each holds one tile at a time, and its share of the row sums.
    """

    def __init__(self, source: TileSource, *, kind: str = "ntk", threads: int = 2) -> None:
        super().__init__(source.grid.rows)
        self.source, self.kind, self.threads = source, kind, threads

    def _multiply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        grid = self.source.grid
        graph: dict[Any, Any] = {("tile", t.i, t.j): (self._products, t, _Whole(v)) for t in grid}
        rows = grid.shape[0]
        for i in range(rows):
            parts = [("tile", i, j) for j in range(i, rows)] + [("tile", j, i) for j in range(i)]
            graph["row", i] = (_sum_row, i, parts)
        with threadpool_limits(limits=1, user_api="blas"):
            sums = threaded_get(graph, [("row", i) for i in range(rows)], num_workers=self.threads)
        return np.concatenate(sums)

    def _products(self, t: Tile, whole: _Whole) -> tuple[int, int, NDArray[np.float64], NDArray[np.float64] | None]:
        v = whole.v
        values = self.source.read_tile(self.kind, t.i, t.j)
        direct = np.empty((t.shape[0], v.shape[1]))
        mirrored = None if t.on_diagonal else np.zeros((t.shape[1], v.shape[1]))
        for strip in spans(t.shape[0], _STRIP):
            wide = values[strip].astype(np.float64, copy=False)
            direct[strip] = wide @ v[t.cols]
            if mirrored is not None:
                mirrored += wide.T @ v[t.rows][strip]
        return t.i, t.j, direct, mirrored

    def diagonal_mean(self) -> float:
        """Mean of the diagonal."""
        diagonal = [np.diagonal(self.source.read_tile(self.kind, t.i, t.j)) for t in self.source.grid if t.on_diagonal]
        return float(np.concatenate(diagonal).mean(dtype=np.float64))

    @property
    def description(self) -> str:
        """One line for logs."""
        grid = self.source.grid
        return (
            f"out of core ({self.n} x {self.n} in {len(grid)} stored tiles of {grid.tile}, {self.threads} Dask threads)"
        )


class _Whole:
    """Hides the block of vectors from Dask, which would otherwise look through it for keys."""

    def __init__(self, v: NDArray[np.float64]) -> None:
        self.v = v


def _sum_row(
    i: int, parts: list[tuple[int, int, NDArray[np.float64], NDArray[np.float64] | None]]
) -> NDArray[np.float64]:
    """Sum of one row of tiles, always in the same order, so that a product repeats to the last bit."""
    total: NDArray[np.float64] | None = None
    for row, _, direct, mirrored in parts:
        part = direct if row == i else mirrored
        assert part is not None
        total = part.copy() if total is None else total + part
    assert total is not None
    return total
