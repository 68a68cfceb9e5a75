"""A store seen from elsewhere: a handle that travels between processes, and the whole matrix as a dask array."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from advntk_dist.errors import StoreIncompleteError
from advntk_dist.gram.fingerprint import require_same
from advntk_dist.gram.store import GramStore
from advntk_dist.grid import spans
from advntk_dist.storage.paths import Location

if TYPE_CHECKING:
    import dask.array as da  # imported where it is used: an actor that holds tiles starts sooner without


@dataclass(frozen=True)
class StoreHandle:
    """Path and fingerprint of a store: enough to open it elsewhere, and to see that it is the same.

    Task graphs hold handles, never zarr objects: Dask on Ray rebuilds dataclasses in graphs, which zarr's metadata do
    not survive.
    """

    path: str
    fingerprint: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, store: GramStore) -> Self:
        """The handle of a store that is open here."""
        flat = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in store.fingerprint.items())
        return cls(str(store.path.resolve()), flat)

    def open(self) -> GramStore:
        """The store, opened anew.

        Raises
        ------
        StoreMismatchError
            If another store has taken the place.
        StoreIncompleteError, StoreError
            If there is none, or it is damaged.
        """
        store = GramStore.open(self.path)
        ours = {k: list(v) if isinstance(v, tuple) else v for k, v in self.fingerprint}
        require_same(self.path, store.fingerprint, ours)
        return store


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
    """The matrix of a store as a dask array; tiles below the diagonal are transposes of stored ones."""
    import dask.array as da
    from dask.tokenize import tokenize

    if kind not in store.kinds:
        raise StoreIncompleteError(f"{store.path}: holds {', '.join(store.kinds)}, not {kind}")
    handle = StoreHandle.of(store)
    view: da.Array = da.map_blocks(  # type: ignore[no-untyped-call]
        _load,
        chunks=tuple(tuple(s.stop - s.start for s in spans(size, store.tile)) for size in (store.n, store.n_columns)),
        dtype=store.dtype,
        meta=np.empty((0, 0), store.dtype),
        name=f"gram-{tokenize(handle.path, kind, handle.fingerprint)}",
        handle=handle,
        kind=kind,
    )
    return view


def _load(handle: StoreHandle, kind: str, block_id: tuple[int, int]) -> NDArray[Any]:
    store, (i, j) = _open_once(handle), block_id
    if store.symmetric and i > j:
        return store.read_tile(kind, j, i).T
    return store.read_tile(kind, i, j)


@lru_cache(maxsize=32)
def _open_once(handle: StoreHandle) -> GramStore:
    return handle.open()
