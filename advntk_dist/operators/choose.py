"""Which operator serves a matrix, from the memory there is and the cluster at hand."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, get_args

import dask.array as da
import numpy as np

from advntk_dist.environment import usable_cores
from advntk_dist.errors import RequestError
from advntk_dist.operators.base import GramOperator
from advntk_dist.operators.dense import DaskArrayOperator, InMemoryOperator
from advntk_dist.operators.tiled import TiledOperator

if TYPE_CHECKING:
    from advntk_dist.gram.store import GramStore

log = logging.getLogger(__name__)

MATRIX_SHARE = 0.5
"""Fraction of the solver's memory that a matrix held whole may take; the rest is for Krylov bases."""

OperatorChoice = Literal["auto", "memory", "threads", "dask-on-ray", "resident"]

_SKETCH_COLUMNS = 300


def as_operator(theta: Any) -> GramOperator:
    """An operator for a numpy array, a dask array, or an operator itself.

    Raises
    ------
    TypeError
        If theta is none of these.
    """
    if isinstance(theta, GramOperator):
        return theta
    if isinstance(theta, da.Array):
        return DaskArrayOperator(theta)
    if isinstance(theta, np.ndarray):
        return InMemoryOperator(theta)
    raise TypeError(f"theta must be a numpy array, a dask array or a GramOperator, got {type(theta).__name__}")


def operator_for_store(
    store: GramStore,
    *,
    memory: int,
    kind: str = "ntk",
    operator: OperatorChoice = "auto",
    address: str | None = None,
    threads: int | None = None,
) -> GramOperator:
    """An operator for a complete store.

    Parameters
    ----------
    store
        A complete Gram store.
    memory
        Memory of the solver in this process, in bytes.
    kind
        Kernel of the store, "ntk" or "nngp".
    operator
        "memory" holds the matrix here; "threads" reads it tile by tile in each pass; "dask-on-ray" does so on the
        cores of a Ray cluster; "resident" holds it in the memory of a Ray cluster. "auto" takes "memory" where the
        matrix fits half of ``memory``, else "resident" on a cluster of several nodes that holds it, else "threads",
        and logs a warning where there are several nodes.
    address
        Ray cluster to connect to; without one only a Ray that already runs in this process is looked at by "auto",
        and the other two start one here. What is started here is shut down when the operator is closed.
    threads
        Threads of this process; all usable cores by default.

    Raises
    ------
    RequestError
        If the requested operator does not fit the memory, or the cluster.
    StoreIncompleteError
        If tiles are missing.
    StoreDamagedError
        If a tile that is read into memory fails its checksum.
    """
    if operator not in get_args(OperatorChoice):
        raise RequestError(f"solver.operator: must be one of {', '.join(get_args(OperatorChoice))}, got {operator!r}")
    store.require_complete()
    whole = store.n**2 * store.dtype.itemsize
    fits = whole <= MATRIX_SHARE * memory
    if operator == "memory" and not fits:
        raise RequestError(
            f"solver.operator: memory needs {whole / 1e9:.2f} GB for the matrix and as much for the solver, and "
            f"solver.memory is {memory / 1e9:.2f} GB; raise it, or use threads"
        )
    if operator == "memory" or (operator == "auto" and fits):
        return InMemoryOperator(_read_whole(store, kind), threads=threads)
    if operator in ("dask-on-ray", "resident") or (operator == "auto" and (address is not None or _ray_is_up())):
        chosen = _on_cluster(store, kind, operator, address)
        if chosen is not None:
            return chosen
    return TiledOperator(store, kind=kind, threads=threads or usable_cores())


def _read_whole(store: GramStore, kind: str) -> np.ndarray[Any, Any]:
    theta = np.empty((store.n, store.n), store.dtype)
    for t in store.grid:
        values = store.read_tile(kind, t.i, t.j)
        theta[t.rows, t.cols] = values
        theta[t.cols, t.rows] = values.T
    return theta


def _ray_is_up() -> bool:
    import ray

    return bool(ray.is_initialized())


def _on_cluster(store: GramStore, kind: str, operator: OperatorChoice, address: str | None) -> GramOperator | None:
    """An operator on Ray; None where "auto" finds no cluster of several nodes, or none that holds the matrix."""
    from advntk_dist.distributed.session import ray_session
    from advntk_dist.operators.dask_on_ray import DaskOnRayOperator
    from advntk_dist.operators.placement import alive_nodes, place_store
    from advntk_dist.operators.resident import ResidentOperator

    with ExitStack() as session:
        session.enter_context(ray_session(address, image_bytes=8 * store.n * _SKETCH_COLUMNS))
        if operator == "auto":
            if len(alive_nodes()) < 2:
                return None
            try:
                place_store(store)
            except RequestError as error:
                log.warning("each pass reads the matrix from its store: %s", error)
                return None
        make = DaskOnRayOperator if operator == "dask-on-ray" else ResidentOperator
        chosen: GramOperator = make(store, kind=kind)
        chosen.resources = session.pop_all()
        return chosen
