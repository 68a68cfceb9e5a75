"""Commit records: a tile counts as done only once its record is written.

A record is one chunk of a small int64 Zarr array beside the matrix, written after the tile's chunk is durable. A record
that is absent or damaged means that its tile is not committed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from advntk_dist.grid import TileGrid
from advntk_dist.storage import durable
from advntk_dist.storage.paths import Location

FIELDS = {
    "crc32c": "checksum of the tile's values as stored, the last four bytes of its chunk",
    "bytes": "length of the tile's chunk",
    "compute_us": "time to compute the tile, microseconds",
    "attempt": "how many times the tile had been handed to a worker, this time included",
    "unix_ms": "time of the commit, milliseconds since 1970 UTC",
    "seal": "checksum of what the tile belongs to: network, numbers, kernel, place, shape, and crc32c",
}


REQUESTS = 16
"""Requests to an object store that are under way at once."""

T = TypeVar("T")


@dataclass(frozen=True)
class CommitRecord:
    """What is known of a committed tile; the fields are those of ``FIELDS``, in order, without the seal."""

    crc32c: int
    bytes: int
    compute_us: int
    attempt: int
    unix_ms: int


class CommitLog:
    """The commit records of one kernel of a store.

    Parameters
    ----------
    root
        Folder of the store.
    kind
        "ntk" or "nngp".
    owner
        What the tiles belong to, as JSON values: records of anything else do not count.
    grid
        Tiles of the store.
    """

    def __init__(self, root: Location, kind: str, owner: Mapping[str, Any], grid: TileGrid) -> None:
        self.root, self.array, self._grid = root, f"commits/{kind}", grid
        self._owner = [dict(owner), kind]

    def _seal(self, i: int, j: int, crc32c: int) -> int:
        shape = self._grid.at(i, j).shape  # a ragged tile becomes a whole one where a store grows
        of = [int(value) for value in (i, j, *shape, crc32c)]
        return durable.json_checksum(self._owner, json.dumps(of).encode())

    def _path(self, i: int, j: int) -> Location:
        return durable.chunk_path(self.root, self.array, i, j, 0)

    def read(self, i: int, j: int) -> CommitRecord | None:
        """The record of tile (i, j), None where it is absent.

        Raises
        ------
        durable.ChunkDamagedError
            If there is a record but its bytes are damaged, or it is that of another tile.
        """
        try:
            payload = durable.read_checked(self._path(i, j), len(FIELDS) * np.dtype(np.int64).itemsize)
        except FileNotFoundError:
            return None
        *values, seal = (int(v) for v in durable.decode(payload, (len(FIELDS),), np.int64))
        if values[0] < 0:
            return None
        if seal != self._seal(i, j, values[0]):
            raise durable.ChunkDamagedError("belongs to another tile or store")
        return CommitRecord(*values)

    def intact(self, i: int, j: int) -> CommitRecord | None:
        """The record of tile (i, j), None where it is absent or damaged."""
        try:
            return self.read(i, j)
        except durable.ChunkDamagedError:
            return None

    def each(self, read: Callable[[int, int], T], places: Iterable[tuple[int, int]]) -> list[T]:
        """What a reading method of this log gives for many tiles; many at a time where each is a request to a store."""
        if isinstance(self.root, Path):
            return [read(*place) for place in places]
        with ThreadPoolExecutor(REQUESTS, thread_name_prefix="commits") as pool:
            return list(pool.map(lambda place: read(*place), places))

    def write(self, i: int, j: int, record: CommitRecord) -> None:
        """Write the record of tile (i, j) durably."""
        durable.write_durable(
            self._path(i, j), durable.encode(np.array([*astuple(record), self._seal(i, j, record.crc32c)], np.int64))
        )

    def remove(self, i: int, j: int) -> None:
        """Take the commit of tile (i, j) back, durably."""
        path = self._path(i, j)
        if path.exists():
            path.unlink(missing_ok=True)
            durable.flush_folder(path.parent)
