"""Files and objects that land at their place whole or not at all, and survive a power cut; and chunks of Zarr arrays.

Everything that a run stores is written by :func:`write_durable`. A chunk's bytes are those of Zarr's codecs "bytes"
(little endian) and "crc32c", under Zarr's default chunk keys, so plain zarr reads them. Tiles are written past zarr, as
it does not tell the checksum of what it has written, which the commit record of a tile needs. Large ones go past the
page cache where the system can (Linux, from aligned memory): a worker's core is for kernels, and copying tiles into the
cache takes a tenth of it; and what is read back so comes from the disk, not from the memory that it was written from.
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c
import numpy as np
from numpy.typing import DTypeLike, NDArray

from advntk_dist.storage.paths import Location

CRC_BYTES = 4
READS = 3
"""Times that damaged content is read: what came over the network may be damaged, not what is stored."""

DAMAGE = (KeyError, TypeError, ValueError, AttributeError)
"""What is raised for chunks, and by zarr for descriptions, that are damaged or not there."""

T = TypeVar("T")

BLOCK = 4096
"""Alignment in bytes of memory and lengths that every common disk accepts for direct writes."""

_SMALLEST = 2**20
"""Bytes from which a direct write is worth it, and bytes read at once."""

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP}

PARTIAL = ".partial"
"""Suffix of a chunk file that is still being written, the same as zarr's."""


class ChunkDamagedError(ValueError):
    """A chunk's bytes do not fit its length or its checksum; the message says which."""


def chunk_path(root: Location, array: str, *place: int) -> Location:
    """File of the chunk at ``place`` of an array of the group at ``root``."""
    return root.joinpath(array, "c", *map(str, place))


def checksum(payload: bytes) -> int:
    """The crc32c that an encoded chunk carries in its last four bytes."""
    return int.from_bytes(payload[-CRC_BYTES:], "little")


def parts(values: NDArray[Any]) -> tuple[memoryview, bytes]:
    """Bytes of an array as a chunk stores them, not copied if little-endian and in C order, and their crc32c."""
    data = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return data.data, int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def encode(values: NDArray[Any]) -> bytes:
    """Encode an array as one whole chunk: little-endian C order, then its crc32c."""
    return b"".join(parts(values))


def json_checksum(value: object, *more: bytes) -> int:
    """The crc32c of a JSON value, whatever the order of its keys, and of bytes that follow it."""
    crc = int(google_crc32c.value(json.dumps(value, sort_keys=True).encode()))
    for part in more:
        crc = int(google_crc32c.extend(crc, part))
    return crc


def check_file(path: Location, nbytes: int) -> int:
    """Checksum of a stored chunk of ``nbytes`` bytes of values; a file is read piece by piece.

    Raises
    ------
    ChunkDamagedError
        If its length is another, or the checksum does not fit.
    """
    if not isinstance(path, Path):
        return checksum(read_checked(path, nbytes))
    crc, length, tail = 0, 0, b""
    for piece in read_pieces(path):
        inside = min(len(piece), max(0, nbytes - length))
        crc = google_crc32c.extend(crc, np.frombuffer(piece[:inside], np.uint8))
        length, tail = length + len(piece), tail + piece[inside:].tobytes()[: CRC_BYTES + 1]
    _require_length(length, nbytes)
    _require_checksum(crc, tail)
    return crc


def check(payload: bytes, nbytes: int) -> None:
    """Raise ChunkDamagedError unless the payload has ``nbytes`` bytes before its checksum, and fits it."""
    _require_length(len(payload), nbytes)
    _require_checksum(google_crc32c.value(np.frombuffer(payload, np.uint8, nbytes)), payload)


def _require_length(length: int, nbytes: int) -> None:
    if length != nbytes + CRC_BYTES:
        raise ChunkDamagedError(f"{length} bytes instead of {nbytes + CRC_BYTES}")


def _require_checksum(crc: int, payload: bytes) -> None:
    if crc != checksum(payload):
        raise ChunkDamagedError("checksum does not match")


def read_again(read: Callable[[], T]) -> T:
    """The result of a function that reads and checks, called up to ``READS`` times while it finds damage.

    Raises
    ------
    Exception
        One of ``DAMAGE``, from the last time; any other from the first.
    """
    for _ in range(READS - 1):
        try:
            return read()
        except DAMAGE:
            continue
    return read()


def read_checked(path: Location, nbytes: int) -> bytes:
    """The bytes of a stored chunk, checked.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ChunkDamagedError
        If it is damaged.
    """

    def read() -> bytes:
        payload = path.read_bytes()
        check(payload, nbytes)
        return payload

    return read_again(read)


def decode(payload: bytes, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Decode a whole chunk, whose checksum is not looked at, into a read-only array of ``shape``.

    Raises
    ------
    ChunkDamagedError
        If the length is wrong.
    """
    little = np.dtype(dtype).newbyteorder("<")
    count = int(np.prod(shape))
    _require_length(len(payload), count * little.itemsize)
    return np.frombuffer(payload, little, count).reshape(shape)


def write_durable(path: Location, *payload: bytes | memoryview, new: bool = False) -> bool:
    """Write a file, the payload's parts in order, whole or not at all: a partial one, flushed, renamed, folder flushed.

    An object is written by one put, which is as good.

    Parameters
    ----------
    path
        The file or object.
    payload
        Its bytes, in parts.
    new
        Write only where nothing is there yet: of several writers at once one succeeds.

    Returns
    -------
    bool
        Whether it was written; only with ``new`` it may be False.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written; nothing is left behind then.
    StoreError
        If an object store refuses, or does not answer.
    """
    if not isinstance(path, Path):
        return path.write_bytes(b"".join(payload), new=new)
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        write_flushed(partial, payload)
        if not new:
            partial.replace(path)
        written = not new or _place(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    for folder in {path.parent, *(folder.parent for folder in missing)}:
        flush_folder(folder)
    return written


def _place(partial: Path, path: Path) -> bool:
    """Give a file its name, unless another file has it; whether it has it now."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without links, such as a mounted bucket: two writers in the same moment are not told apart.
        if path.exists():
            return False
        partial.replace(path)
    return True


def flush_folder(folder: Location) -> None:
    """Flush a folder's entries, so that files renamed into it are still there after a power cut."""
    if not isinstance(folder, Path):
        return  # what an object store has confirmed stays
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partials(root: Location) -> int:
    """Delete what writers that died have left behind, and return how many files that were."""
    if not isinstance(root, Path):
        return 0
    found = list(root.rglob(f"*{PARTIAL}"))
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def move_folder(source: Path, target: Path) -> None:
    """Rename a folder beside its target, which is there whole or not at all; it survives a power cut."""
    source.rename(target)
    flush_folder(target.parent)


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
    """A new array whose memory starts at a page, with undefined values."""
    kind = np.dtype(dtype)
    count = int(np.prod(shape))
    memory = mmap.mmap(-1, max(1, count * kind.itemsize))
    return np.frombuffer(memory, kind, count).reshape(shape)


def write_flushed(path: Path, payload: Sequence[bytes | memoryview]) -> None:
    """Write a new file, the parts in order, and flush it to disk; a large aligned first part passes the cache by.

    Raises
    ------
    OSError
        If the disk is full or the file cannot be written.
    """
    body = _aligned_bytes(payload[0])
    descriptor, direct = _open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, body > 0)
    try:
        done = 0
        if direct:
            done = _write_direct(descriptor, memoryview(payload[0]).cast("B")[:body])
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_DIRECT)
        for part in payload:
            view = memoryview(part).cast("B")
            while done < len(view):
                done += os.write(descriptor, view[done:])
            done = 0
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _aligned_bytes(part: bytes | memoryview) -> int:
    """How many bytes of a part, from its start, a disk takes past the cache."""
    data = np.frombuffer(part, np.uint8)
    if len(data) < _SMALLEST or data.ctypes.data % BLOCK:
        return 0
    return len(data) - len(data) % BLOCK


def _open(path: Path, flags: int, direct: bool) -> tuple[int, bool]:
    """A descriptor of a file, and whether it passes the cache by: it does if that is asked for and possible."""
    if direct and hasattr(os, "O_DIRECT"):
        try:
            return os.open(path, flags | os.O_DIRECT, 0o644), True
        except OSError as error:
            if error.errno != errno.EINVAL:  # what file systems say that know no direct access
                raise
            if flags & os.O_CREAT:
                path.unlink(missing_ok=True)  # some have made the file by then
    return os.open(path, flags, 0o644), False


def _write_direct(descriptor: int, view: memoryview) -> int:
    """Write what goes directly; the caller writes the rest."""
    done = 0
    while done < len(view) and done % BLOCK == 0:
        try:
            done += os.write(descriptor, view[done:])
        except OSError as error:
            if error.errno == errno.EINVAL:  # a disk that wants larger blocks
                break
            raise
    return done


def read_pieces(path: Path) -> Iterator[memoryview]:
    """The bytes of a file, from the disk where that is possible; a piece is gone when the next one is asked for.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    descriptor, _ = _open(path, os.O_RDONLY, direct=True)
    try:
        memory = mmap.mmap(-1, _SMALLEST)
        while length := os.readv(descriptor, [memory]):
            yield memoryview(memory)[:length]
    finally:
        os.close(descriptor)
