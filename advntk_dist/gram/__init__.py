"""Gram matrices: Ray actors compute tiles, a Zarr store keeps them, commit records say which are done.

Names are imported when they are first used: a worker needs neither Dask nor the scheduler, and starts sooner.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advntk_dist.gram.build import build_gram as build_gram
    from advntk_dist.gram.store import GramStore as GramStore
    from advntk_dist.gram.verify import invalidate as invalidate
    from advntk_dist.gram.verify import verify_gram as verify_gram
    from advntk_dist.gram.view import open_gram as open_gram
    from advntk_dist.gram.worker import WorkerPool as WorkerPool

_HOMES = {
    "GramStore": "store",
    "build_gram": "build",
    "WorkerPool": "worker",
    "invalidate": "verify",
    "open_gram": "view",
    "verify_gram": "verify",
}

__all__ = ["GramStore", "WorkerPool", "build_gram", "invalidate", "open_gram", "verify_gram"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
