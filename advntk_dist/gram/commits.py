"""Commit records: a tile counts as done only when its record says so.

A record is one chunk of a small int64 Zarr array beside the matrix, written after the tile's chunk is durable. A record
that is absent or damaged means that its tile is not committed.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from advntk_dist.gram import chunks

FIELDS = {
    "crc32c": "checksum of the tile's values as stored, the last four bytes of its chunk",
    "bytes": "length of the tile's chunk",
    "compute_us": "time to compute the tile, microseconds",
    "attempt": "how many times the tile had been handed to a worker, this time included",
    "unix_ms": "time of the commit, milliseconds since 1970 UTC",
}


@dataclass(frozen=True)
class CommitRecord:
    """What is known of a committed tile; the fields are those of ``FIELDS``, in order."""

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
    """

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.array = root, f"commits/{kind}"

    def _path(self, i: int, j: int) -> Path:
        return chunks.chunk_path(self.root, self.array, i, j, 0)

    def read(self, i: int, j: int) -> CommitRecord | None:
        """The record of tile (i, j), None where it is absent.

        Raises
        ------
        chunks.ChunkDamagedError
            If there is a record but its bytes are damaged.
        """
        try:
            payload = self._path(i, j).read_bytes()
        except FileNotFoundError:
            return None
        values = chunks.decode(payload, (len(FIELDS),), np.int64)
        return None if values[0] < 0 else CommitRecord(*(int(v) for v in values))

    def intact(self, i: int, j: int) -> CommitRecord | None:
        """The record of tile (i, j), None where it is absent or damaged."""
        try:
            return self.read(i, j)
        except chunks.ChunkDamagedError:
            return None

    def write(self, i: int, j: int, record: CommitRecord) -> None:
        """Write the record of tile (i, j) durably."""
        chunks.write_durable(self._path(i, j), chunks.encode(np.array(astuple(record), np.int64)))

    def remove(self, i: int, j: int) -> None:
        """Take the commit of tile (i, j) back, durably."""
        path = self._path(i, j)
        if path.exists():
            path.unlink(missing_ok=True)
            chunks.flush_folder(path.parent)
