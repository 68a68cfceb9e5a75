"""Products as a Dask graph that runs as Ray tasks: any worker of the cluster reads the tiles of its tasks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError

from advntk_dist.distributed.scheduler import results_in_order
from advntk_dist.distributed.worker import Failure, worker_environment
from advntk_dist.errors import RequestError, SolverError
from advntk_dist.gram.view import StoreHandle
from advntk_dist.operators.base import blas_threads
from advntk_dist.operators.tiled import PartialProduct, Rows, Run, Vectors, product_of, run_product, runs
from advntk_dist.operators.tiles import StoreTiles, TilesOperator

if TYPE_CHECKING:
    from advntk_dist.gram.store import GramStore

RETRIES = 3
"""Times that Ray starts a task again whose worker died."""


class DaskOnRayOperator(TilesOperator):
    """Products through ``ray.util.dask``, one task a run of stored tiles, with one core each.

    Nothing of the matrix stays in memory between passes: for clusters whose memory does not hold it.

    Parameters
    ----------
    store
        A complete Gram store, at a path that all nodes see.
    kind
        Kernel of the store, "ntk" or "nngp".
    patience
        Seconds to wait for the next part of a product.

    Raises
    ------
    RequestError
        If Ray is not running, or pandas and pyarrow, which ``ray.util.dask`` imports, are not installed.
    """

    def __init__(self, store: GramStore, *, kind: str = "ntk", patience: float = 600.0) -> None:
        super().__init__(StoreTiles(store, kind))
        if not ray.is_initialized():
            raise RequestError("solver.operator: dask-on-ray needs a running Ray; give --address, or call ray.init()")
        try:
            from ray.util.dask import ray_dask_get
        except ImportError as error:
            raise RequestError(
                f"solver.operator: dask-on-ray needs pandas and pyarrow ({error}); install them, or use resident"
            ) from error
        self._get = ray_dask_get
        self.handle, self.kind, self.patience = StoreHandle.of(store), kind, patience
        self._runs = runs(store.grid)

    def _multiply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        vectors = _Reference(ray.put(Vectors.of(v)))
        graph: dict[Any, Any] = {
            ("part", i): (_part, self.handle, self.kind, run, vectors) for i, run in enumerate(self._runs)
        }
        options = {"num_cpus": 1, "max_retries": RETRIES, "runtime_env": {"env_vars": worker_environment(1, False)}}
        # Without ray_persist Dask on Ray would wait for ever, and hold all parts at once.
        references = self._get(graph, list(graph), ray_persist=True, ray_remote_args=options)
        return product_of(self._arriving(list(references)), Rows.all(self.n), v.shape[1])

    def _arriving(self, references: list[Any]) -> Iterator[PartialProduct]:
        try:
            for part in results_in_order(references, self.patience):
                if isinstance(part, Failure):
                    raise part.as_error(SolverError)
                yield part
        except TimeoutError as error:
            raise SolverError(
                f"Dask on Ray: no part of a product came for {self.patience:g} s; check the cluster with `ray "
                "status`, or use another solver.operator"
            ) from error
        except RayError as error:
            raise SolverError(
                f"Dask on Ray: a task failed for good ({str(error).strip().splitlines()[-1]}); check the cluster, "
                "and run the same command again"
            ) from error

    @property
    def description(self) -> str:
        """One line for logs."""
        cores = int(ray.cluster_resources().get("CPU", 0))
        return f"Dask on Ray ({self.n} x {self.n} in {len(self._runs)} tasks, {cores} cores, read again each pass)"


class _Reference:
    """Hides an object reference from Dask on Ray, which would otherwise fetch it into every task's arguments."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference


def _part(handle: StoreHandle, kind: str, run: Run, vectors: _Reference) -> PartialProduct | Failure:
    """Runs in a Ray worker; its process remembers the store, and which tiles it has verified."""
    try:
        with blas_threads(1):
            return run_product(_tiles_of(handle, kind), run, ray.get(vectors.reference))
    except Exception as error:
        return Failure.of(error)


@lru_cache(maxsize=8)
def _tiles_of(handle: StoreHandle, kind: str) -> StoreTiles:
    """The tiles of a store, opened once a process, so that each tile is verified once a process."""
    return StoreTiles(handle.open(), kind)
