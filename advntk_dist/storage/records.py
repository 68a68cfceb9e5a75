"""Checkpoints in Zarr: groups that know whose they are, arrays in which each chunk is one committed record.

A chunk is written atomically and carries a checksum; an absent record reads as NaN, never as zeros.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec

from advntk_dist.errors import StoreDamagedError, StoreError, StoreMismatchError
from advntk_dist.storage.location import Location
from advntk_dist.storage.zarr_store import ObjectGroupStore, zarr_at

_IDENTITY = "identity"

READS = 3
"""Times that an object is read whose checksum fails: what came over the network may be damaged, not what is stored."""


def guarded_group(path: Location, identity: Mapping[str, Any]) -> zarr.Group:
    """The Zarr group at ``path``, made if it is not there, for this identity only.

    Raises
    ------
    StoreMismatchError
        If the group was made for another identity; names the first field that differs.
    StoreError
        If there is something else at the path.
    """
    identity = json.loads(json.dumps(dict(identity)))  # as it is stored: tuples become lists
    if path.exists() and not _unfinished(path):
        group, stored = _open(path, "r+")
        for field, value in identity.items():
            if stored.get(field) != value:
                raise StoreMismatchError(str(path), field, stored.get(field), value)
        return group
    return zarr.create_group(**zarr_at(path), zarr_format=3, attributes={_IDENTITY: identity})


def read_group(path: Location) -> tuple[zarr.Group, dict[str, Any]]:
    """The group at ``path``, to be read, and the identity for which it was made.

    Raises
    ------
    StoreError
        If there is something else at the path.
    """
    return _open(path, "r")


def _open(path: Location, mode: Literal["r", "r+"]) -> tuple[zarr.Group, dict[str, Any]]:
    try:
        group = zarr.open_group(**zarr_at(path), mode=mode, zarr_format=3)
        attributes: dict[str, Any] = group.attrs.asdict()
        return group, dict(attributes[_IDENTITY])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise StoreError(f"{path}: not a checkpoint of this program ({error}); move it away") from error


def _unfinished(path: Location) -> bool:
    """Whether a process died here while it made the group: nothing but temporary files of its metadata."""
    return path.is_dir() and all(p.name.endswith(".partial") for p in path.iterdir())


class Records:
    """A table of rows in a Zarr array; a row, or a span of rows, is written as one chunk and so at once.

    Parameters
    ----------
    group
        Where the array lives.
    name
        Its name.
    rows
        Number of rows.
    shape
        Shape of one row, numbers in float64.
    span
        Rows to a chunk.
    """

    def __init__(self, group: zarr.Group, name: str, rows: int, shape: tuple[int, ...], *, span: int = 1) -> None:
        self.where = f"{group.store_path}/{name}"
        self.rows, self.span = rows, span
        self._reads = READS if isinstance(group.store, ObjectGroupStore) else 1
        try:
            array = group.get(name)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise StoreDamagedError(
                f"{self.where}: its metadata are damaged ({error}); remove this folder and run again"
            ) from error
        if array is not None:
            assert isinstance(array, zarr.Array)
            if array.shape != (rows, *shape):
                raise StoreMismatchError(self.where, "shape", [*array.shape], [rows, *shape])
            if array.chunks[0] != span:
                raise StoreMismatchError(self.where, "rows to a chunk", array.chunks[0], span)
            self._array = array
        else:
            self._array = group.create_array(
                name,
                shape=(rows, *shape),
                chunks=(span, *(max(1, s) for s in shape)),
                dtype="float64",
                fill_value=float("nan"),
                filters=None,
                serializer=BytesCodec(),
                compressors=Crc32cCodec(),
                config={"write_empty_chunks": True},
            )

    def write(self, start: int, values: NDArray[np.float64]) -> None:
        """Write the chunk that begins at row ``start``; values must be finite.

        Raises
        ------
        ValueError
            If the rows are not exactly one chunk, or not finite.
        """
        stop = min(start + self.span, self.rows)
        if start % self.span or len(values) != stop - start or not np.isfinite(values).all():
            raise ValueError(f"{self.where}: rows {start} to {start + len(values)} are not one finite chunk")
        self._array[start:stop] = values

    def read(self, start: int) -> NDArray[np.float64] | None:
        """The chunk that begins at row ``start``, or None where none is committed.

        Raises
        ------
        StoreDamagedError
            If the stored bytes fail their checksum.
        """
        stop = min(start + self.span, self.rows)
        for left in reversed(range(self._reads)):
            try:
                values = np.asarray(self._array[start:stop], dtype=np.float64)
                break
            except (ValueError, OSError) as error:
                if not left:
                    raise StoreDamagedError(
                        f"{self.where}: rows {start} to {stop} are damaged ({error}); remove this folder and run again"
                    ) from error
        return None if np.isnan(values).any() else values

    def read_all(self) -> NDArray[np.float64] | None:
        """All rows, or None where one is missing."""
        chunks = [self.read(start) for start in range(0, self.rows, self.span)]
        return None if any(c is None for c in chunks) else np.concatenate([c for c in chunks if c is not None])
