"""How many cores this process may use, and how many threads its linear algebra takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController


def usable_cores() -> int:
    """Cores that this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def blas_threads(limit: int | None) -> Iterator[None]:
    """Give products of matrices at most so many threads; None leaves them as they are."""
    if limit is None:
        yield
        return
    with _libraries().limit(limits=limit, user_api="blas"):
        yield


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    # Looking for the libraries takes longer than a small product: once is enough, numpy's and scipy's are there.
    import scipy.linalg  # noqa: F401

    return ThreadpoolController()
