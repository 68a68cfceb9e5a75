"""The Gram store: a Zarr group with one (n, n) array a kernel, chunk = tile, and the commit records of the tiles."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.errors import GramBuildError, OtherFormatError, StoreDamagedError, StoreError, StoreIncompleteError
from advntk_dist.gram.commits import CommitLog, CommitRecord
from advntk_dist.gram.fingerprint import FORMAT, SIZES, Fingerprint, require_same
from advntk_dist.gram.layout import ATTRIBUTE, checksum, create_layout, is_absent
from advntk_dist.gram.status import GramStatus, read_status
from advntk_dist.grid import Tile, TileGrid
from advntk_dist.kernels.nonfinite import require_finite
from advntk_dist.storage import durable
from advntk_dist.storage.paths import Location, location
from advntk_dist.storage.zarr_store import zarr_at

if TYPE_CHECKING:
    from advntk_dist.kernels.backend import KernelKind

ROUNDING = {"float32": 2.0**-6, "float64": 2.0**-20}
"""How far two computations of one tile may lie apart, in units of its largest value: rounding, which the angle between
nearly equal images magnifies to its square root, and each layer by a little more."""

_LOOKS = 5
"""Times that a chunk which another writer may replace is committed anew."""


class GramStore:
    """A Gram matrix (n, n), or a rectangular kernel (n, n_columns), on disk.

    For a symmetric matrix only tiles on and above the diagonal are stored. Make one with :meth:`open` or
    :meth:`create_or_open`; reading is safe at any time, writing needs :func:`advntk_dist.storage.locks.builder_lock`.
    """

    def __init__(self, path: Location, attributes: dict[str, Any]) -> None:
        self.path = path
        self.fingerprint: Fingerprint = attributes["fingerprint"]
        self.network: dict[str, Any] = attributes["network"]
        self.n: int = self.fingerprint["n"]
        self.n_columns: int = self.fingerprint["n_columns"]
        self.tile: int = self.fingerprint["gram.tile"]
        self.dtype = np.dtype(self.fingerprint["gram.dtype"])
        self.kinds: tuple[KernelKind, ...] = tuple(self.fingerprint["kinds"])
        self.symmetric = self.fingerprint["columns"] is None
        self.grid = TileGrid(self.n, self.n_columns, self.tile, symmetric=self.symmetric)
        owner = {field: value for field, value in self.fingerprint.items() if field not in SIZES}
        self.commits: dict[str, CommitLog] = {kind: CommitLog(path, kind, owner, self.grid) for kind in self.kinds}

    @classmethod
    def open(cls, path: str | Location) -> GramStore:
        """Open an existing store.

        Raises
        ------
        StoreIncompleteError
            If there is nothing at ``path``.
        StoreError
            If what is there is not a Gram store, or its description is damaged.
        OtherFormatError
            If it has another format version.
        """
        root = location(path)
        try:
            attributes = json.loads((root / "zarr.json").read_bytes())["attributes"][ATTRIBUTE]
            fingerprint, network = attributes["fingerprint"], attributes["network"]
            stored_format = fingerprint["format"]
            if attributes.get("crc32c") != checksum(fingerprint, network) and stored_format == FORMAT:
                raise ValueError("its checksum does not match")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            nothing = not root.exists() if isinstance(root, Path) else is_absent(root)
            if isinstance(error, FileNotFoundError) and nothing:
                raise StoreIncompleteError(f"{root}: no Gram store here; make it with `advntk gram build`") from None
            raise StoreError(
                f"{root}: not a Gram store, or its zarr.json is damaged ({type(error).__name__}: {error}); "
                "give the path of a gram.zarr; where it is one, move it away, and the same command builds it again"
            ) from error
        if stored_format != FORMAT:
            raise OtherFormatError(root, stored_format, FORMAT)
        return cls(root, attributes)

    @classmethod
    def create_or_open(cls, path: str | Location, fingerprint: Fingerprint, network: dict[str, Any]) -> GramStore:
        """Open the store of this fingerprint, or create it whole.

        Parameters
        ----------
        path
            Folder of the store; absent or empty for a new one.
        fingerprint
            Fingerprint of the store, from :func:`advntk_dist.gram.fingerprint.make_fingerprint`.
        network
            ``net.spec.as_dict()``, kept so that the network can be made again from the store alone.

        Raises
        ------
        StoreMismatchError
            If the store there has another fingerprint; the message names the field.
        StoreError
            If something else is there.
        """
        root = location(path)
        if is_absent(root):
            create_layout(root, fingerprint, network)
        store = cls.open(root)
        require_same(str(root), store.fingerprint, fingerprint)
        return store

    def committed(self, kind: str | None = None) -> NDArray[np.bool_]:
        """Which tiles have an intact commit record, (tiles down, tiles across); of all kinds unless one is named."""
        done, places = np.zeros(self.grid.shape, bool), [(t.i, t.j) for t in self.grid]
        logs = list(self.commits.values()) if kind is None else [self.commits[kind]]
        found = zip(*(log.each(log.intact, places) for log in logs), strict=True)
        for place, records in zip(places, found, strict=True):
            done[place] = all(record is not None for record in records)
        return done

    def require_complete(self) -> None:
        """Raise StoreIncompleteError unless every tile is committed."""
        done = int(self.committed().sum())
        if done != len(self.grid):
            raise StoreIncompleteError(
                f"{self.path}: {done} of {len(self.grid)} tiles are done; finish it with `advntk gram build`"
            )

    def status(self) -> GramStatus:
        """Tiles done, bytes, damaged records, time and rate so far."""
        return read_status(self.path, self.grid, self.commits)

    def chunk_path(self, kind: str, i: int, j: int) -> Location:
        """File or object of the chunk of tile (i, j)."""
        return durable.chunk_path(self.path, kind, i, j)

    def write_tile(
        self, kind: str, tile: Tile, values: NDArray[Any], *, attempt: int = 1, compute_seconds: float = 0.0
    ) -> CommitRecord:
        """Store the values of a tile, then its commit record. The first commit of a tile stays.

        Processes may write one tile at the same time, with other last bits if their processors are of other kinds: the
        chunk of the first stays, and later writers commit that chunk in place of their own. Only what is damaged, or no
        computation of this tile, is replaced; as several may do so at once, a writer that has not made the chunk reads
        it again after its commit. On a file system without hard links two writers in the same moment cannot be
        distinguished.

        Raises
        ------
        GramBuildError
            If a value is not finite (the message names tile and images), if shape or dtype are wrong, or if
            what was written does not read back the same.
        OSError
            If the disk is full or cannot be written.
        """
        if values.shape != tile.shape or values.dtype != self.dtype:
            raise GramBuildError(
                f"tile ({tile.i}, {tile.j}) of {kind} came as {values.dtype} {values.shape}, "
                f"the store takes {self.dtype} {tile.shape}"
            )
        require_finite(kind, tile, values, symmetric=self.symmetric)
        padded = values
        if tile.shape != (self.tile, self.tile):
            padded = np.full((self.tile, self.tile), np.nan, self.dtype)
            padded[: tile.shape[0], : tile.shape[1]] = values
        first = self.commits[kind].intact(tile.i, tile.j)
        if first is not None:
            return first
        path = self.chunk_path(kind, tile.i, tile.j)
        data, crc = durable.parts(padded)

        def commit(checksum: int) -> CommitRecord:
            now, size = time.time_ns() // 10**6, data.nbytes + durable.CRC_BYTES
            record = CommitRecord(checksum, size, round(compute_seconds * 1e6), attempt, now)
            self.commits[kind].write(tile.i, tile.j, record)
            return record

        expected = durable.checksum(crc)
        if durable.write_durable(path, data, crc, new=True):
            self._require_written(path, data.nbytes, expected)
            return commit(expected)
        if self._same_to_rounding(path, padded) is None:
            durable.write_durable(path, data, crc)
        for _ in range(_LOOKS):
            there = self._same_to_rounding(path, padded)
            if there is None:
                break
            record = commit(there)
            if self._same_to_rounding(path, padded) == there:
                return record
        raise GramBuildError(f"{path}: what was written does not read back the same; check the disk")

    def _require_written(self, path: Location, nbytes: int, expected: int) -> None:
        try:
            if durable.check_file(path, nbytes) == expected:
                return
            why = "other bytes"
        except durable.ChunkDamagedError as error:
            why = str(error)
        raise GramBuildError(f"{path}: what was written does not read back the same ({why}); check the disk")

    def _same_to_rounding(self, path: Location, padded: NDArray[Any]) -> int | None:
        """Checksum of the sound chunk at ``path`` if its values are these but for rounding, else None."""
        try:
            payload = durable.read_checked(path, padded.nbytes)
        except (durable.ChunkDamagedError, FileNotFoundError):
            return None
        there = durable.decode(payload, padded.shape, self.dtype)
        size = float(np.nanmax(np.abs(padded)))
        same = np.allclose(there, padded, rtol=0.0, atol=ROUNDING[self.dtype.name] * size, equal_nan=True)
        return durable.checksum(payload) if same else None

    def take_back(self, kind: str, i: int, j: int) -> None:
        """Take tile (i, j) out: its commit, then its chunk. The caller holds the builder's lock."""
        self.commits[kind].remove(i, j)
        self.chunk_path(kind, i, j).unlink(missing_ok=True)

    def read_tile(self, kind: str, i: int, j: int, verify: bool = True) -> NDArray[Any]:
        """Values of a stored tile, read-only; for a symmetric store i <= j.

        Raises
        ------
        StoreIncompleteError
            If the tile is not committed.
        StoreDamagedError
            If its chunk is missing, of another length, or (with ``verify``) fails its checksum or its record.
        IndexError
            If there is no such tile.
        """
        tile = self.grid.at(i, j)
        if kind not in self.commits:
            raise StoreIncompleteError(f"{self.path}: holds {', '.join(self.kinds)}, not {kind}")
        record = self.commits[kind].intact(i, j)
        if record is None:
            raise StoreIncompleteError(
                f"{self.path}: tile ({i}, {j}) of {kind} is not committed; finish it with `advntk gram build`"
            )
        try:
            payload = self._payload(kind, i, j, verify)
            values = durable.decode(payload, (self.tile, self.tile), self.dtype)
            if verify and durable.checksum(payload) != record.crc32c:
                raise durable.ChunkDamagedError("checksum differs from the commit record")
        except durable.ChunkDamagedError as error:
            raise StoreDamagedError(
                f"{self.path}: tile ({i}, {j}) of {kind} is damaged ({error}); `advntk gram build` computes it again"
            ) from error
        return values[: tile.shape[0], : tile.shape[1]]

    def _payload(self, kind: str, i: int, j: int, verify: bool) -> bytes:
        path = self.chunk_path(kind, i, j)
        try:
            return durable.read_checked(path, self.tile**2 * self.dtype.itemsize) if verify else path.read_bytes()
        except FileNotFoundError:
            raise durable.ChunkDamagedError("committed, but its chunk is missing") from None

    def arrays(self) -> zarr.Group:
        """The group as plain zarr, read-only."""
        return zarr.open_group(**zarr_at(self.path), mode="r")
