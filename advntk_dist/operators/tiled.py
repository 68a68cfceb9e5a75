"""The stored half of a Gram matrix, read by Dask threads: memory stays at a few tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.threaded import get as threaded_get
from numpy.typing import NDArray

from advntk_dist.operators.base import GramOperator
from advntk_dist.operators.cores import blas_threads
from advntk_dist.operators.products import Part, Run, Vectors, product_of, run_product, runs, task_bytes
from advntk_dist.operators.rows import Rows
from advntk_dist.operators.tiles import StoreTiles, Tiles, diagonal_mean

if TYPE_CHECKING:
    from advntk_dist.gram.store import GramStore


class TiledOperator(GramOperator):
    """Products through a Dask graph with one task a run of stored tiles.

    A tile above the diagonal serves both its halves in one read: T V_j for rows i, and T^T V_i for rows j. The parts
    are added in a fixed order, so that a product does not depend on the number of threads.

    Parameters
    ----------
    source
        A Gram store, or any :class:`advntk_dist.operators.tiles.Tiles`.
    kind
        Which kernel of the store.
    threads
        Dask threads; each has one task in flight.
    """

    def __init__(self, source: GramStore | Tiles, *, kind: str = "ntk", threads: int = 2) -> None:
        self.tiles: Tiles = source if isinstance(source, Tiles) else StoreTiles(source, kind)
        super().__init__(self.tiles.grid.rows)
        self.threads = threads
        self._runs, self._rows = runs(self.tiles.grid), Rows.all(self.n)

    def _multiply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        return threaded_product(self.tiles, self._runs, self._rows, Vectors.of(v), self.threads)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        return self.tiles.dtype

    def diagonal_mean(self) -> float:
        """Mean of the diagonal."""
        return diagonal_mean(self.tiles)

    def pass_bytes(self, columns: int) -> int:
        """Memory that a product with so many columns takes beside its argument and its result, in bytes."""
        each = task_bytes(self.tiles.grid, columns, self.tiles.dtype.itemsize)
        return min(self.threads, len(self._runs)) * each + 8 * self.n * columns

    @property
    def description(self) -> str:
        """One line for logs."""
        grid = self.tiles.grid
        return (
            f"out of core ({self.n} x {self.n} in {len(grid)} stored tiles of {grid.tile}, {self.threads} Dask threads)"
        )


def threaded_product(
    tiles: Tiles, parts: Sequence[Run], rows: Rows, vectors: Vectors, threads: int
) -> NDArray[np.float64]:
    """What the given runs of tiles add to the rows of Theta v that they touch, (len(rows), k), on so many Dask threads.

    The parts are added in order, each as soon as those before it are there, so that few are held at a time.
    """
    product, shared = _Opaque(np.zeros((len(rows), vectors.columns))), _Opaque(vectors)

    def add(total: _Opaque, part: Part, _before: None) -> None:
        part.add_to(total.content, rows)

    def part(number: int, block: _Opaque) -> Part:
        if number + threads < len(parts):
            tiles.expect(parts[number + threads].tiles[0])  # what this thread, more or less, takes next
        return run_product(tiles, parts[number], block.content)

    if threads == 1 or len(parts) == 1:
        with blas_threads(1):
            return product_of((run_product(tiles, run, vectors) for run in parts), rows, vectors.columns)
    graph: dict[Any, Any] = {}
    for number in range(len(parts)):
        graph["part", number] = (part, number, shared)
        graph["sum", number] = (add, product, ("part", number), ("sum", number - 1) if number else None)
    with blas_threads(1):
        threaded_get(graph, ("sum", len(parts) - 1), num_workers=threads)
    return np.asarray(product.content)


class _Opaque:
    """Hides arrays from Dask, which would otherwise look through them for keys."""

    def __init__(self, content: Any) -> None:
        self.content = content
