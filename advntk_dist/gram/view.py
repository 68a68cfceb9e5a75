"""The full matrix as a dask array: tiles below the diagonal are transposes of stored ones."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import dask.array as da
import numpy as np
from dask.tokenize import tokenize
from numpy.typing import NDArray

from advntk_dist.errors import StoreIncompleteError
from advntk_dist.gram.fingerprint import require_same
from advntk_dist.gram.store import GramStore
from advntk_dist.grid import spans
from advntk_dist.storage.paths import Location


def open_gram(path: str | Location, kind: str = "ntk") -> da.Array:
    """Open a complete Gram store as the full symmetric dask array (n, n), chunk = tile.

    Raises
    ------
    StoreIncompleteError
        If there is no store, a tile is missing, or the store does not hold ``kind``.
    StoreError
        If what is at ``path`` is not a Gram store. Damaged tiles raise StoreDamagedError when they are computed.
    """
    store = GramStore.open(path)
    store.require_complete()
    return dask_view(store, kind)


def dask_view(store: GramStore, kind: str = "ntk") -> da.Array:
    """The matrix of a store as a dask array.

    The graph holds the path and the fingerprint, never a zarr object: Dask on Ray rebuilds dataclasses in graphs,
    which zarr's metadata do not survive. Each process opens the store once.
    """
    if kind not in store.kinds:
        raise StoreIncompleteError(f"{store.path}: holds {', '.join(store.kinds)}, not {kind}")
    edges = [tuple(s.stop - s.start for s in spans(size, store.tile)) for size in (store.n, store.n_columns)]
    fingerprint = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in store.fingerprint.items())
    view: da.Array = da.map_blocks(  # type: ignore[no-untyped-call]
        _load,
        chunks=tuple(edges),
        dtype=store.dtype,
        meta=np.empty((0, 0), store.dtype),
        name=f"gram-{tokenize(str(store.path.resolve()), kind, fingerprint)}",
        path=str(store.path.resolve()),
        kind=kind,
        fingerprint=fingerprint,
    )
    return view


def _load(path: str, kind: str, fingerprint: tuple[tuple[str, Any], ...], block_id: tuple[int, int]) -> NDArray[Any]:
    store = _open_once(path, fingerprint)
    i, j = block_id
    return store.read_tile(kind, j, i).T if store.symmetric and i > j else store.read_tile(kind, i, j)


@lru_cache(maxsize=32)
def _open_once(path: str, fingerprint: tuple[tuple[str, Any], ...]) -> GramStore:
    store = GramStore.open(path)
    require_same(path, store.fingerprint, {k: list(v) if isinstance(v, tuple) else v for k, v in fingerprint})
    return store
