"""Files past the page cache: a worker's core is for kernels, and copying tiles into the cache takes a tenth of it.

What is read back so comes from the disk, not from the memory that it was written from. Linux only, and only from
aligned memory: :func:`aligned_empty` gives it. Anything else goes through the cache.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

BLOCK = 4096
"""Alignment of memory and lengths that every common disk accepts."""

_SMALLEST = 2**20
"""Bytes from which it is worth it, and bytes read at once."""


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
    descriptor, direct = _open(path, body > 0)
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
    if len(data) < _SMALLEST or data.ctypes.data % BLOCK or not hasattr(os, "O_DIRECT"):
        return 0
    return len(data) - len(data) % BLOCK


def _open(path: Path, direct: bool) -> tuple[int, bool]:
    """A descriptor of a new file, and whether it is for direct writes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    if direct:
        try:
            return os.open(path, flags | os.O_DIRECT, 0o644), True
        except OSError as error:
            if error.errno != errno.EINVAL:  # what file systems say that know no direct writes
                raise
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
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.open(path, os.O_RDONLY)
    try:
        memory = mmap.mmap(-1, _SMALLEST)
        while length := os.readv(descriptor, [memory]):
            yield memoryview(memory)[:length]
    finally:
        os.close(descriptor)
