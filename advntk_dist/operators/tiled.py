"""The stored half of a Gram matrix, read by Dask threads: memory stays at a few tiles."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from dask.threaded import get as threaded_get
from numpy.typing import NDArray

from advntk_dist.grid import Tile, TileGrid, spans
from advntk_dist.operators.base import blas_threads
from advntk_dist.operators.tiles import StoreTiles, Tiles, TilesOperator

if TYPE_CHECKING:
    from advntk_dist.gram.store import GramStore


class TiledOperator(TilesOperator):
    """Products through a Dask graph with one task a run of stored tiles.

    A tile above the diagonal serves both its halves in one read: T V_j for rows i, and T^T V_i for rows j. The parts
    are added in a fixed order, so that a product does not depend on the number of threads.

    Parameters
    ----------
    source
        A Gram store, or any :class:`advntk_dist.operators.tiles.Tiles`.
    kind
        Kernel of the store, "ntk" or "nngp".
    threads
        Dask threads; each has one task in flight.
    """

    def __init__(self, source: GramStore | Tiles, *, kind: str = "ntk", threads: int = 2) -> None:
        super().__init__(source if isinstance(source, Tiles) else StoreTiles(source, kind))
        self.threads = threads
        self._runs, self._rows = runs(self.tiles.grid), Rows.all(self.n)

    def _multiply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        return threaded_product(self.tiles, self._runs, self._rows, Vectors.of(v), self.threads)

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

    def add(total: _Opaque, part: PartialProduct, _before: None) -> None:
        part.add_to(total.content, rows)

    def part(number: int, block: _Opaque) -> PartialProduct:
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


RUN_TILES = 8
"""Tiles of one row that make one task."""

NARROW = 64
"""Blocks of up to this many columns."""

_NARROW_BLOCK = (128, 512)
_UNPACKED = 10**6
_WIDE_BLOCK = (256, 2048)
"""Rows and columns that are widened to float64 at once. For narrow blocks of vectors they stay in a core's own cache,
and are so few that OpenBLAS takes the product without packing (rows x columns x vectors up to a million); for wide
ones packing pays, and pays more for larger blocks."""


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
class PartialProduct:
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


def run_product(tiles: Tiles, run: Run, vectors: Vectors) -> PartialProduct:
    """The part of a run; sums are float64 and always in the same order, so that a product repeats to the last bit."""
    k, (rows, columns) = vectors.columns, block_shape(tiles.grid, vectors.columns)
    height, width = run.rows.stop - run.rows.start, run.cols.stop - run.cols.start
    direct, mirrored = np.zeros((height, k)), np.zeros((k, width))
    from_rows = np.ascontiguousarray(vectors.transposed[:, run.rows])
    wide, through, across = np.empty((rows, columns)), np.empty((rows, k)), np.empty((k, columns))
    for t, following in zip(run.tiles, (*run.tiles[1:], None), strict=True):
        if following is not None:
            tiles.expect(following)
        below = mirrored[:, t.col_start - run.cols.start : t.col_stop - run.cols.start]
        right = vectors.v[t.cols]
        for panel, values in tiles.panels(t, rows):
            left, beside = from_rows[:, panel], direct[panel]
            for part in spans(t.shape[1], columns):
                piece = values[:, part]
                if piece.shape != wide.shape:  # at the ends of a tile, and after them
                    a, b = piece.shape
                    wide, through, across = np.empty((a, b)), np.empty((a, k)), np.empty((k, b))
                np.copyto(wide, piece)
                beside += np.matmul(wide, right[part], out=through)
                if not t.on_diagonal:
                    below[:, part] += np.matmul(left, wide, out=across)
    return PartialProduct(run, direct, mirrored)


def product_of(parts: Iterable[PartialProduct], rows: Rows, k: int) -> Array:
    """Some rows of the product, (len(rows), k), from the parts, added in the order in which they come."""
    product = np.zeros((len(rows), k))
    for part in parts:
        part.add_to(product, rows)
    return product


Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Rows of a matrix, in blocks, as they lie one below the other in a smaller array.

    Attributes
    ----------
    blocks
        Disjoint blocks of rows, in ascending order and not adjacent.
    """

    blocks: tuple[slice, ...]

    @classmethod
    def all(cls, n: int) -> Self:
        """All rows of a matrix."""
        return cls((slice(0, n),))

    @classmethod
    def touched(cls, tiles: Iterable[Tile]) -> Self:
        """Rows of Theta v that some stored tiles add to: their own, and through their mirror images their columns."""
        found = {side for t in tiles for side in ((t.row_start, t.row_stop), (t.col_start, t.col_stop))}
        blocks: list[slice] = []
        for start, stop in sorted(found):
            if blocks and blocks[-1].stop == start:
                start = blocks.pop().start
            blocks.append(slice(start, stop))
        return cls(tuple(blocks))

    def __len__(self) -> int:
        return sum(block.stop - block.start for block in self.blocks)

    def within(self, rows: slice) -> slice:
        """Where some neighbouring rows of the matrix, all of them in one block, lie in the smaller array."""
        number = bisect_right([block.start for block in self.blocks], rows.start) - 1
        shift = sum(block.stop - block.start for block in self.blocks[:number]) - self.blocks[number].start
        return slice(rows.start + shift, rows.stop + shift)

    def add(self, small: Array, product: Array) -> None:
        """Add an array of these rows, (len(self), k), to that of all rows, (n, k)."""
        stops = list(accumulate(block.stop - block.start for block in self.blocks))
        for block, stop in zip(self.blocks, stops, strict=True):
            product[block] += small[stop - (block.stop - block.start) : stop]
