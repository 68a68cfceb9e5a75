"""Anybody's own images in a Zarr group: arrays as in :mod:`advntk_dist.data.arrays`, and an attribute classes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from advntk_dist.data.arrays import CLASSES, KNOWN, WHAT, assemble, choose_layout
from advntk_dist.data.dataset import Dataset
from advntk_dist.data.files import reason, require_path, require_plain_files, require_room
from advntk_dist.errors import DatasetError
from advntk_dist.grid import spans

_WHAT = f"a Zarr group {WHAT}"
_MARKERS = ("zarr.json", ".zgroup")
_NUMBERS = frozenset("biuf")


def read_zarr(path: Path | None) -> Dataset:
    """Read a Zarr group (format 2 or 3), a chunk's rows at a time; names and meanings as for :func:`read_npz`.

    Class names are the group's attribute ``classes`` (a list of strings), or "0", "1", ... up to the largest label.

    Raises
    ------
    DatasetError
        If the folder is no Zarr group, lacks images or labels, holds arrays of another type, shape or scale or more
        than this machine's memory, or a chunk is damaged, absent or no plain file. Zarr reads an absent chunk as its
        fill value, so nothing else would tell it from black images; for the same reason arrays in shards are refused,
        whose absent chunks cannot be counted.
    """
    place = require_path(path, "zarr", _WHAT)
    if not holds_zarr(place):
        raise DatasetError(f"{place}: no Zarr group (it has neither zarr.json nor .zgroup); it must be {_WHAT}")
    require_plain_files(place)
    import zarr  # takes a third of a second to import

    try:
        group = zarr.open_group(place, mode="r")
        classes = group.attrs.get(CLASSES)
        names = list(group)
        found = {name: group[name] for name in names if name in KNOWN}
    except Exception as error:
        # The metadata are anybody's JSON: they fail in any way that Zarr's parser can fail.
        raise DatasetError(f"{place}: not a readable Zarr group ({reason(error)}); it must be {_WHAT}") from error
    layout = choose_layout(names, place, _WHAT)
    arrays = {name: _read(found[name], name, place) for pair in layout.pairs for name in pair}
    if classes is not None:
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise DatasetError(f"{place}: the attribute classes must be a list of strings, got {classes!r:.80}")
        arrays[CLASSES] = np.array(classes)
    elif CLASSES in found:
        raise DatasetError(f"{place}: classes is an array; give it as an attribute of the group, a list of strings")
    return assemble(arrays, layout, place)


def holds_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group or array."""
    return any((path / marker).is_file() for marker in _MARKERS)


def _read(array: Any, name: str, place: Path) -> np.ndarray:
    where = f"{place}/{name}"
    if not hasattr(array, "chunks"):
        raise DatasetError(f"{where}: is a group, not an array; it must be {_WHAT}")
    if array.dtype.kind not in _NUMBERS or not array.ndim:
        raise DatasetError(f"{where}: is {array.dtype} of shape {array.shape}; it must be {_WHAT}")
    if getattr(array, "shards", None) is not None:
        raise DatasetError(f"{where}: is stored in shards, in which absent chunks cannot be found; write it without")
    absent = array.nchunks - array.nchunks_initialized
    if absent:
        raise DatasetError(
            f"{where}: {absent} of {array.nchunks} chunks are absent and would read as {array.fill_value}; finish or "
            "repeat the copy, or write it with config={'write_empty_chunks': True} if they hold just that value"
        )
    require_room(max(math.prod(array.shape), math.prod(array.chunks)) * array.dtype.itemsize, where)
    values = np.empty(array.shape, array.dtype)
    for rows in spans(array.shape[0], array.chunks[0]):
        try:
            values[rows] = array[rows]
        except Exception as error:
            # Which errors a damaged chunk gives depends on the codec.
            raise DatasetError(
                f"{where}: rows {rows.start} to {rows.stop - 1} cannot be read ({reason(error)}); write them again"
            ) from error
    return values
