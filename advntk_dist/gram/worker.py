"""The Ray actor that computes tiles and writes them itself; only small receipts go through Ray."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from advntk_dist.distributed.pool import ActorPool
from advntk_dist.distributed.worker import PooledActor
from advntk_dist.environment import peak_memory
from advntk_dist.errors import GramBuildError
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.view import StoreHandle
from advntk_dist.grid import Tile
from advntk_dist.spec import NetworkSpec
from advntk_dist.storage.durable import aligned_empty

if TYPE_CHECKING:
    from advntk_dist.networks import Network


@dataclass(frozen=True)
class Receipt:
    """A tile that is committed; times in seconds."""

    i: int
    j: int
    attempt: int
    compute_seconds: float
    write_seconds: float
    bytes: int
    host: str
    pid: int
    peak_bytes: int
    """Largest memory of the worker so far in bytes, with the images it shares with others."""


class GramWorker(PooledActor):
    """Computes tiles of one store after another; of two tiles at a time, one is computed while the other is written."""

    def __init__(self) -> None:
        self.compute_lock = threading.Lock()
        self.rooms: list[dict[str, NDArray[Any]]] = []

    def prepare(
        self,
        spec: NetworkSpec,
        x: NDArray[Any],
        columns: NDArray[Any] | None,
        handle: StoreHandle,
    ) -> dict[str, Any]:
        """Open a store, make its network, and compile the kernel on one block of real images.

        Parameters
        ----------
        spec
            Specification of the network.
        x, columns
            Float images (n, H, W, C) of rows and columns in the store's dtype, shared memory of the node; columns is
            None for a symmetric matrix.
        handle
            Handle of the store: a worker that outlives its driver must not write into another store.

        Returns
        -------
        details
            {"pair_seconds": measured time in seconds of a kernel entry, all kinds together}.
        """
        from advntk_dist.networks import from_spec  # imports JAX: an actor starts sooner without

        self.handle, self.store = handle, handle.open()
        self.x, self.columns = x, x if columns is None else columns
        self.rooms = []
        self.net = from_spec(spec)  # and what it compiles are kept from one store to the next
        pair_seconds = self.net.tile_kernel.warm_up(self.x, self.columns, self.store.kinds, tile=self.store.tile)
        return {"pair_seconds": pair_seconds}

    def rest(self) -> None:
        """Free the images of a store that is done with, which are shared memory of the node, and its tiles."""
        del self.x, self.columns
        self.rooms = []

    def tile(self, i: int, j: int, attempt: int) -> Receipt:
        """Compute tile (i, j) of every kind, write it, and return the receipt of its commit.

        Raises
        ------
        GramBuildError
            If values are not finite.
        StoreError
            If the tile cannot be stored, or another store has taken the place of this worker's.
        """
        t = self.store.grid.at(i, j)
        room = self._room(t.shape)
        with self.compute_lock:
            started = time.perf_counter()
            values = compute_tile(self.store, t, self.net, self.x, self.columns, into=room)
            computed = time.perf_counter()
        self.handle.open()  # raises an error where another store has taken the place of this worker's
        written = 0
        for kind, block in values.items():
            seconds = (computed - started) / len(values)
            written += self.store.write_tile(kind, t, block, attempt=attempt, compute_seconds=seconds).bytes
        if room is not None:
            self.rooms.append(room)
        done = time.perf_counter()
        return Receipt(
            i,
            j,
            attempt,
            computed - started,
            done - computed,
            written,
            socket.gethostname(),
            os.getpid(),
            peak_memory(),
        )

    def _room(self, shape: tuple[int, int]) -> dict[str, NDArray[Any]] | None:
        """Arrays for a whole tile, used again and again; None for a ragged one."""
        if shape != (self.store.tile, self.store.tile):
            return None
        if self.rooms:
            return self.rooms.pop()
        return {kind: aligned_empty(shape, self.store.dtype) for kind in self.store.kinds}


def compute_tile(
    store: GramStore,
    t: Tile,
    net: Network,
    x: NDArray[Any],
    columns: NDArray[Any] | None = None,
    *,
    into: dict[str, NDArray[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Values of a tile of a store, shaped as the tile, by kind.

    Parameters
    ----------
    store
        The store, complete or not.
    t
        Tile of its grid.
    net
        The network of the store.
    x, columns
        Images (n, H, W, C) and (n_columns, H, W, C) of rows and columns, floats of the store's dtype; no columns for
        a symmetric matrix.
    into
        Arrays by kind to write to, shaped as the tile; new ones by default.
    """
    return net.tile_kernel.matrices(
        x[t.rows],
        (x if columns is None else columns)[t.cols],
        store.kinds,
        symmetric=store.symmetric and t.on_diagonal,
        tile=store.tile,
        into=into,
    )


class WorkerPool(ActorPool):
    """Workers for one call of :func:`~advntk_dist.gram.build.build_gram` after another; a context manager.

    A build whose pool has workers at rest, with JAX imported and kernels compiled, begins seconds sooner.

    Parameters
    ----------
    address
        Address of a Ray cluster; by default the Ray that is already in use, or a new one on this machine, with shared
        memory for the images of the first build, that is stopped when the pool is closed.
    cpus
        Cores that Ray reserves for one worker.
    """

    def __init__(self, address: str | None = None, *, cpus: int = 1) -> None:
        super().__init__(GramWorker, GramBuildError, address, cpus=cpus)
