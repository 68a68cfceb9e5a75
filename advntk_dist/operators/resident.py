"""Tiles resident in Ray actors, spread over the nodes: no pass reads anything but the vectors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import NDArray

from advntk_dist.distributed.pool import ActorPool, Call, Reservation
from advntk_dist.distributed.scheduler import WorkerPerPart
from advntk_dist.distributed.worker import PooledActor, WorkerInfo
from advntk_dist.errors import RequestError, SolverError
from advntk_dist.gram.view import StoreHandle
from advntk_dist.grid import Tile, TileGrid, spans
from advntk_dist.operators.placement import alive_nodes, place_again, place_store
from advntk_dist.operators.tiled import NARROW, Rows, Run, Vectors, runs_of, threaded_product
from advntk_dist.operators.tiles import StoreTiles, TilesOperator

if TYPE_CHECKING:
    from advntk_dist.gram.store import GramStore

log = logging.getLogger(__name__)

START_PATIENCE = 300.0
SLOWEST_READ = 20e6
"""Seconds for a holder to start, and bytes a second at which it loads; a slower one is taken for dead."""


class ResidentOperator(TilesOperator):
    """Products by actors that keep their tiles in memory, each with its share of the stored half.

    A holder that dies, or does not answer, is replaced by one that reads the same tiles again: on its own node, or,
    where that is lost, on the one that has most room left. Sums are taken in the order of the holders, so that a
    replacement changes no bit. The holders reserve memory, and no cores: between passes they do nothing.

    Parameters
    ----------
    store
        A complete Gram store, at a path that all nodes see.
    kind
        Kernel of the store, "ntk" or "nngp".
    holders
        Number of actors; by default one for every four cores of each node.
    patience
        Seconds to wait for a holder that has its tiles to answer; starting and loading get longer.

    Raises
    ------
    RequestError
        If Ray is not running, or the cluster's memory does not hold the tiles.
    SolverError
        If a holder is lost again and again, or its node is lost and no other has room.
    StoreDamagedError, StoreIncompleteError
        If a tile cannot be read.
    """

    def __init__(
        self, store: GramStore, *, kind: str = "ntk", holders: int | None = None, patience: float = 300.0
    ) -> None:
        super().__init__(StoreTiles(store, kind))
        if not ray.is_initialized():
            raise RequestError("solver.operator: resident needs a running Ray; give --address, or call ray.init()")
        self.handle, self.kind, self._patience = StoreHandle.of(store), kind, patience
        self._placements = place_store(store, holders)
        self._parts = partition(store.grid, len(self._placements))
        self._rows = [Rows.touched(t for run in part for t in run.tiles) for part in self._parts]
        most = max(sum(len(run.tiles) for run in part) for part in self._parts)
        self._part_bytes = most * store.tile**2 * store.dtype.itemsize
        self._pool = ActorPool(TileHolder, SolverError)
        loading = START_PATIENCE + self._part_bytes / SLOWEST_READ
        self._holders = WorkerPerPart(self._pool, len(self._placements), self._start, self._lost, loading)
        try:
            self._holders.ask(None, patience)
        except BaseException:
            self.close()
            raise

    def _multiply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        product = np.zeros_like(v)
        # Wide blocks go in pieces: what the holders send back is here all at once, and passes from memory are cheap.
        for piece in spans(v.shape[1], NARROW):
            call = Call("product", "resident tiles", (ray.put(Vectors.of(v[:, piece])),))
            for rows, part in zip(self._rows, self._holders.ask(call, self._patience), strict=True):
                rows.add(part, product[:, piece])
        return product

    def _start(self, number: int) -> int:
        at = self._placements[number]
        reservation = Reservation(cpus=0, memory=self._part_bytes, node=at.node, threads=at.threads)
        return self._pool.start_with(reservation, self.handle, self.kind, self._parts[number], at.threads)

    def _lost(self, number: int, reason: str, was_loaded: bool) -> None:
        before = self._placements[number]
        if not was_loaded or before.node not in {str(node["NodeID"]) for node in alive_nodes()}:
            others = [other for k, other in enumerate(self._placements) if k != number]
            self._placements[number] = place_again(others, self._part_bytes, avoid=before.node)
        log.warning("holder %d of the Gram matrix is lost (%s); another one reads its tiles", number, reason)

    @property
    def holders(self) -> dict[int, WorkerInfo]:
        """Where the holder of each part runs, with its number of "tiles" and their "bytes" as details."""
        return self._holders.infos

    @property
    def replaced(self) -> int:
        """Holders that were lost and replaced since the operator was made."""
        return self._holders.replaced

    def close(self) -> None:
        """End the holders, which frees their memory."""
        self._pool.release()
        super().close()

    @property
    def description(self) -> str:
        """One line for logs."""
        held = sum(info.details["bytes"] for info in self.holders.values()) / 1e9
        nodes = len({info.node for info in self.holders.values()})
        return f"resident ({self.n} x {self.n}, {held:.2f} GB in {len(self._placements)} Ray actors on {nodes} nodes)"


class HeldTiles:
    """Some tiles of a matrix, in memory."""

    def __init__(self, grid: TileGrid, dtype: np.dtype[Any]) -> None:
        self.grid, self.dtype = grid, dtype
        self.values: dict[tuple[int, int], NDArray[Any]] = {}

    def expect(self, t: Tile) -> None:
        """Does nothing: the tile is in memory."""

    def panels(self, t: Tile, rows: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Views into a tile that is held."""
        values = self.values[t.i, t.j]
        for panel in spans(t.shape[0], rows):
            yield panel, values[panel]


class TileHolder(PooledActor):
    """Reads its runs of tiles from the store when it starts, and multiplies with them from then on."""

    uses_jax = False

    def prepare(self, handle: StoreHandle, kind: str, parts: tuple[Run, ...], threads: int) -> dict[str, Any]:
        """Read and verify the tiles.

        Parameters
        ----------
        handle
            Handle of the store.
        kind
            Kernel of the store, "ntk" or "nngp".
        parts
            The runs of tiles to hold.
        threads
            Threads of a product.

        Returns
        -------
        details
            The number of "tiles" that are held, and their "bytes".
        """
        source = StoreTiles(handle.open(), kind)
        self.parts, self.threads = parts, threads
        self.rows = Rows.touched(t for run in parts for t in run.tiles)
        self.held = HeldTiles(source.grid, source.dtype)
        self.held.values = {(t.i, t.j): source.whole(t) for run in parts for t in run.tiles}
        values = self.held.values.values()
        return {"tiles": len(values), "bytes": sum(int(tile.nbytes) for tile in values)}

    def product(self, vectors: Vectors) -> NDArray[np.float64]:
        """What the held tiles add to Theta v: of the rows that they touch, (len(self.rows), k)."""
        return threaded_product(self.held, self.parts, self.rows, vectors, self.threads)


def partition(grid: TileGrid, count: int) -> list[tuple[Run, ...]]:
    """Divide the stored tiles of a symmetric grid among so many holders.

    The tiles are halved across their longer side, and each half again, until there is one part a holder. So all have
    equally many tiles, give or take one a halving, and a part of 1 / count of the tiles touches about
    n sqrt(2 / count) rows: what all holders send back grows as the square root of their number.

    Parameters
    ----------
    grid
        The grid of a symmetric matrix.
    count
        Number of holders, at most one a tile.
    """
    return [tuple(runs_of(sorted(part))) for part in _halved(list(grid), count)]


@lru_cache(maxsize=256)
def rows_sent(grid: TileGrid, count: int) -> int:
    """Rows of a product that so many holders send back together."""
    return sum(len(Rows.touched(part)) for part in _halved(list(grid), count))


def _halved(tiles: Sequence[Tile], count: int) -> list[Sequence[Tile]]:
    if count == 1:
        return [tiles]
    tall = len({t.i for t in tiles}) >= len({t.j for t in tiles})
    ordered = sorted(tiles, key=lambda t: (t.i, t.j) if tall else (t.j, t.i))
    first = count // 2
    cut = round(len(tiles) * first / count)
    return [*_halved(ordered[:cut], first), *_halved(ordered[cut:], count - first)]
