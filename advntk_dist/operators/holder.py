"""The actor that keeps tiles of a Gram matrix in the memory of its node."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.grid import Tile, TileGrid, spans
from advntk_dist.operators.place import Failure, Place
from advntk_dist.operators.products import Run, Vectors
from advntk_dist.operators.rows import Rows
from advntk_dist.operators.tiled import threaded_product


@dataclass(frozen=True)
class Holding:
    """What a holder has in memory, and where it is."""

    tiles: int
    nbytes: int
    node: str
    host: str
    pid: int


class HeldTiles:
    """Some tiles of a matrix, in memory."""

    def __init__(self, grid: TileGrid, dtype: np.dtype[Any]) -> None:
        self.grid, self.dtype = grid, dtype
        self.values: dict[tuple[int, int], NDArray[Any]] = {}

    def expect(self, t: Tile) -> None:
        """Nothing: it is in memory."""

    def panels(self, t: Tile, rows: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Views into a tile that is held."""
        values = self.values[t.i, t.j]
        for panel in spans(t.shape[0], rows):
            yield panel, values[panel]


class TileHolder:
    """Reads its runs of tiles from the store when it is first asked, and multiplies with them from then on.

    Parameters
    ----------
    place
        The store.
    parts
        The runs of tiles to hold.
    threads
        Threads of a product.
    """

    def __init__(self, place: Place, parts: tuple[Run, ...], threads: int) -> None:
        self.place, self.parts, self.threads = place, parts, threads
        self.rows = Rows.touched(t for run in parts for t in run.tiles)
        self.held: HeldTiles | None = None

    def load(self) -> Holding | Failure:
        """Read and verify the tiles, unless they are there already."""
        import ray

        try:
            held = self._tiles()
        except Exception as error:
            return Failure.of(error)
        node = ray.get_runtime_context().get_node_id()
        total = sum(int(values.nbytes) for values in held.values.values())
        return Holding(len(held.values), total, node, socket.gethostname(), os.getpid())

    def product(self, vectors: Vectors) -> NDArray[np.float64] | Failure:
        """What the held tiles add to Theta v: of the rows that they touch, (len(self.rows), k)."""
        try:
            return threaded_product(self._tiles(), self.parts, self.rows, vectors, self.threads)
        except Exception as error:
            return Failure.of(error)

    def _tiles(self) -> HeldTiles:
        if self.held is None:
            source = self.place.open()
            held = HeldTiles(source.grid, source.dtype)
            held.values = {(t.i, t.j): source.whole(t) for run in self.parts for t in run.tiles}
            self.held = held
        return self.held
