"""Opening a store for a build: a new one, the same one, or one of the first images that now grows."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from advntk_dist.data.dataset import fingerprint_images
from advntk_dist.errors import StoreMismatchError
from advntk_dist.gram.fingerprint import SIZES, Fingerprint, require_same
from advntk_dist.gram.layout import CREATING, descriptions, is_absent, mend_layout
from advntk_dist.gram.store import GramStore
from advntk_dist.grid import TileGrid
from advntk_dist.storage import durable
from advntk_dist.storage.location import Location


def open_for_build(
    path: Location,
    fingerprint: Fingerprint,
    network: dict[str, Any],
    x: NDArray[Any],
    columns: NDArray[Any] | None = None,
) -> GramStore:
    """Open the store at ``path`` for the images x (and columns), made or enlarged as need be.

    A store of the first n images is enlarged in place: whole tiles stay, ragged ones at its old edge are
    taken out. The caller holds the builder's lock; a process that dies anywhere in here leaves a store that the next
    call finishes.

    Raises
    ------
    StoreMismatchError
        If the store is of another configuration, or its images are not the first of x.
    StoreError
        If something else is at ``path``.
    """
    if not is_absent(path):
        stored = GramStore.open(path)
        mend_layout(path, stored.fingerprint, stored.network)
        if _is_larger(stored.fingerprint, fingerprint):
            _require_prefix(stored, fingerprint, x, columns)
            _enlarge(stored, fingerprint)
    store = GramStore.create_or_open(path, fingerprint, network)
    mend_layout(path, fingerprint, network, grown=True)
    return store


def _is_larger(stored: Fingerprint, requested: Fingerprint) -> bool:
    sizes = [(stored[s], requested[s]) for s in ("n", "n_columns")]
    return all(old <= new for old, new in sizes) and any(old < new for old, new in sizes)


def _require_prefix(store: GramStore, requested: Fingerprint, x: NDArray[Any], columns: NDArray[Any] | None) -> None:
    where, stored = str(store.path), store.fingerprint
    ours = {k: v for k, v in requested.items() if k not in SIZES}
    require_same(where, stored, ours)
    if (stored["columns"] is None) != (columns is None):
        raise StoreMismatchError(where, "columns", stored["columns"], requested["columns"])
    if stored["gram.tile"] != requested["gram.tile"] and not _one_reduced_tile(stored, requested):
        raise StoreMismatchError(where, "gram.tile", stored["gram.tile"], requested["gram.tile"])
    for field, images in (
        ("images", x[: store.n]),
        ("columns", None if columns is None else columns[: store.n_columns]),
    ):
        if images is not None and fingerprint_images(images) != stored[field]:
            raise StoreMismatchError(where, field, stored[field], requested[field])


def _one_reduced_tile(stored: Fingerprint, requested: Fingerprint) -> bool:
    """Whether the store is one tile, smaller than asked for only because there were so few images."""
    return bool(max(stored["n"], stored["n_columns"]) == stored["gram.tile"] < requested["gram.tile"])


def _enlarge(store: GramStore, fingerprint: Fingerprint) -> None:
    if store.tile != fingerprint["gram.tile"]:
        # Its one tile is ragged under the new tile size, so nothing of it can stay.
        if isinstance(store.path, Path):
            store.path.rename(store.path.with_name(f"{store.path.name}.{uuid.uuid4().hex}{CREATING}"))
        else:
            (store.path / "zarr.json").unlink()  # with it the store; a new one clears what is left
        return
    larger = TileGrid(fingerprint["n"], fingerprint["n_columns"], store.tile, symmetric=store.symmetric)
    for t in store.grid:
        if larger.at(t.i, t.j).shape != t.shape:
            for kind in store.kinds:
                store.take_back(kind, t.i, t.j)
    # The description of the group decides; those of the arrays lag behind until the store is opened.
    durable.write_durable(store.path / "zarr.json", descriptions(fingerprint, store.network)["zarr.json"])
