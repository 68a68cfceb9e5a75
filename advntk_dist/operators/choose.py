"""Which operator serves a matrix, from the memory there is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from advntk_dist.operators.base import GramOperator
from advntk_dist.operators.dask_array import DaskArrayOperator
from advntk_dist.operators.memory import InMemoryOperator
from advntk_dist.operators.tiled import TiledOperator

if TYPE_CHECKING:
    from advntk_dist.gram.store import GramStore

MATRIX_SHARE = 0.5
"""Fraction of the solver's memory that a matrix held whole may take; the rest is for Krylov bases."""


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


def operator_for_store(store: GramStore, *, memory: int, kind: str = "ntk") -> GramOperator:
    """The fastest operator for a complete store within ``memory`` bytes.

    Raises
    ------
    StoreIncompleteError
        If tiles are missing.
    StoreDamagedError
        If a tile that is read into memory fails its checksum.
    """
    store.require_complete()
    threads = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    if store.n**2 * np.dtype(store.dtype).itemsize <= MATRIX_SHARE * memory:
        theta = np.empty((store.n, store.n), store.dtype)
        for t in store.grid:
            values = store.read_tile(kind, t.i, t.j)
            theta[t.rows, t.cols] = values
            theta[t.cols, t.rows] = values.T
        return InMemoryOperator(theta)
    return TiledOperator(store, kind=kind, threads=threads or 1)
