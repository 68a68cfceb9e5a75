"""The Ray actor that computes tiles and writes them itself; only small receipts go through Ray."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import NDArray

from advntk_dist.errors import AdvNTKError, StoreUnreachableError
from advntk_dist.gram.cluster import import_path
from advntk_dist.gram.fingerprint import require_same
from advntk_dist.gram.gpu import unused_gpu
from advntk_dist.gram.store import GramStore
from advntk_dist.spec import NetworkSpec
from advntk_dist.storage.direct_io import aligned_empty
from advntk_dist.storage.paths import forwarded

if TYPE_CHECKING:
    from advntk_dist.gram.tiles import TileComputer


@dataclass(frozen=True)
class WorkerInfo:
    """Where a worker that is ready runs."""

    pid: int
    node: str
    host: str
    platform: str
    pair_seconds: float
    """Measured time a kernel entry, all kinds together."""


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
    """Most memory the worker has had so far, the images it shares with others included."""


@dataclass(frozen=True)
class Failure:
    """A tile that cannot be computed or stored, or a worker that cannot start; trying again would not help."""

    message: str
    unreachable: bool = False
    """Whether all that is wrong is that an object store does not answer."""


class GramWorker:
    """Computes tiles of one store after another. Ray runs it with two threads: one computes while the other writes."""

    def __init__(self) -> None:
        self.compute_lock = threading.Lock()

    def ready(
        self,
        spec: NetworkSpec,
        x: NDArray[Any],
        columns: NDArray[Any] | None,
        path: str,
        fingerprint: dict[str, Any],
    ) -> WorkerInfo | Failure:
        """Take up a store: import JAX, make the network and compile the kernel on one block of real images.

        Parameters
        ----------
        spec
            The network.
        x, columns
            Float images (n, H, W, C) of rows and columns in the store's dtype, shared memory of the node; columns is
            None for a symmetric matrix.
        path
            The store.
        fingerprint
            The store's: a worker that outlives its driver must not write into another store.
        """
        self.path, self.fingerprint = path, fingerprint
        self.x, self.columns = x, x if columns is None else columns
        self.threads = threading.local()
        try:
            import jax

            if (wrong := unused_gpu()) is not None:
                return Failure(f"a worker on {socket.gethostname()} {wrong}")
            self.store = GramStore.open(path)
            self.compute = _computer(spec, self.store.tile, self.store.kinds, x.shape[1:], self.store.dtype)
            pair_seconds = self.compute.warm_up(self.x, self.columns)
            context = ray.get_runtime_context()
            return WorkerInfo(
                os.getpid(), context.get_node_id(), socket.gethostname(), jax.default_backend(), pair_seconds
            )
        except Exception as error:
            if isinstance(error, StoreUnreachableError):
                return Failure(str(error), unreachable=True)
            return Failure(f"a worker on {socket.gethostname()} cannot start: {type(error).__name__}: {error}")

    def rest(self) -> None:
        """Let go of the images of a store that is done with, which are shared memory of the node, and of its tiles."""
        del self.x, self.columns
        self.threads = threading.local()

    def tile(self, i: int, j: int, attempt: int) -> Receipt | Failure:
        """Compute tile (i, j) of every kind, write it, and return the receipt of its commit."""
        try:
            t = self.store.grid.at(i, j)
            with self.compute_lock:
                started = time.perf_counter()
                values = self.compute(
                    self.x[t.rows],
                    self.columns[t.cols],
                    symmetric=self.store.symmetric and t.on_diagonal,
                    into=self._room(t.shape),
                )
                computed = time.perf_counter()
            require_same(self.path, GramStore.open(self.path).fingerprint, self.fingerprint)
            written = 0
            for kind, block in values.items():
                seconds = (computed - started) / len(values)
                written += self.store.write_tile(kind, t, block, attempt=attempt, compute_seconds=seconds).bytes
        except Exception as error:
            # Errors cross Ray as text: not every exception survives pickling, and none of these is worth a retry.
            where = "" if f"tile ({i}, {j})" in str(error) else f"tile ({i}, {j}): "
            name = "" if isinstance(error, AdvNTKError) else f"{type(error).__name__}: "
            return Failure(f"{where}{name}{error}", unreachable=isinstance(error, StoreUnreachableError))
        done = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Receipt(
            i, j, attempt, computed - started, done - computed, written, socket.gethostname(), os.getpid(), peak
        )

    def _room(self, shape: tuple[int, int]) -> dict[str, NDArray[Any]] | None:
        """Arrays of this thread for a whole tile, used again and again; None for a ragged one."""
        if shape != (self.store.tile, self.store.tile):
            return None
        if not hasattr(self.threads, "room"):
            self.threads.room = {kind: aligned_empty(shape, self.store.dtype) for kind in self.store.kinds}
        room: dict[str, NDArray[Any]] = self.threads.room
        return room


@lru_cache(maxsize=8)
def _computer(
    spec: NetworkSpec, tile: int, kinds: tuple[str, ...], image_shape: tuple[int, ...], dtype: np.dtype[Any]
) -> TileComputer:
    """What computes tiles of a kind; kept from one store to the next, so that nothing compiles twice."""
    from advntk_dist.gram.tiles import TileComputer
    from advntk_dist.networks import from_spec

    return TileComputer(from_spec(spec), tile, kinds, image_shape, dtype)


def worker_environment(cpus: int, gpu: bool) -> dict[str, str]:
    """Environment of a worker process, in place before JAX starts.

    XLA on CPU would take every core in each process; NPROC and the thread counts keep a worker to its own. Workers
    without a GPU must not see one: JAX would reserve most of its memory, and Ray hides none from those that ask for
    none.
    """
    threads = str(cpus)
    env = forwarded() | {
        "NPROC": threads,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "ZARR_THREADING__MAX_WORKERS": threads,
        "PYTHONPATH": import_path(),
    }
    if gpu:
        env |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.90"}
    else:
        env |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return env
