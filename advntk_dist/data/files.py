"""Reading dataset files into memory, with every failure turned into one line that names the file."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import psutil

from advntk_dist.errors import DatasetError
from advntk_dist.text import printable

MOST_BYTES = 2**30
"""Bytes that one file of a dataset or one member of an archive may hold; the largest published one holds a seventh."""
MOST_MEMBERS = 5_000_000
"""Files and folders that a folder or an archive may hold; the largest published sets have a million and a half."""
_UNPACKED = 2**20
"""Bytes unpacked at a time."""
_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_ZIP_ENTRY = b"PK\x01\x02"
BROKEN_ARCHIVE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    IndexError,  # a member without a name in a .zip
    OSError,
    OverflowError,
    RuntimeError,  # encrypted or unknown compression in a .zip
    ValueError,
)
"""What reading a damaged archive raises."""


@dataclass(frozen=True)
class ArchiveMember:
    """A file or folder; ``read`` gives the contents of a plain file, and is None for folders, links, pipes, devices."""

    path: PurePosixPath
    read: Callable[[], bytes] | None
    is_folder: bool
    size: int = 0


def require_path(path: Path | None, name: str, what: str) -> Path:
    """Return ``path`` if a file or folder is there; else raise DatasetError: dataset ``name`` needs ``what``."""
    if path is None:
        raise DatasetError(f"dataset {name!r} is not shipped with this package: set data.path to {what}")
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder; set data.path to {what}")
    require_plain(path)
    return path


def require_plain(path: Path) -> None:
    """Raise DatasetError for a pipe, a socket or a device: opening or reading it could take for ever."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DatasetError(
            f"{printable(str(path))}: is neither a file nor a folder but a pipe, a socket or a device, which is not "
            "opened; put a copy of what it should give in a file"
        )


def require_plain_files(folder: Path) -> None:
    """Raise DatasetError, which names it, for anything within a folder that :func:`require_plain` refuses."""
    for place, _, names in os.walk(folder):
        for name in names:
            require_plain(Path(place, name))


def require_room(size: int, where: str) -> None:
    """Raise DatasetError if ``size`` bytes are more than all memory of this machine."""
    memory = _memory()
    if size > memory:
        raise DatasetError(
            f"{where}: unpacks to {_gib(size)}, more than this machine's memory ({_gib(memory)}); if that is not what "
            "you expect of it, do not trust it, else give fewer or smaller images (data.resize)"
        )


def require_fewer(count: int, place: Path) -> None:
    """Raise DatasetError at the first file, folder or member of a place that is one too many."""
    if count >= MOST_MEMBERS:
        raise DatasetError(
            f"{place}: holds more than {MOST_MEMBERS:,} files and folders; do not trust it, or divide it"
        )


def read_bytes(path: Path) -> bytes:
    """Return the contents of a plain file of at most ``MOST_BYTES``; DatasetError where the system will not read it."""
    require_plain(path)
    where = printable(str(path))
    with dataset_errors(f"{where}: cannot be read", "check the path and its permissions", OSError):
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise DatasetError(f"{where}: {_gib(size)}, more than any file of a dataset holds; get it again")
        return path.read_bytes()


def gunzip(content: bytes, where: str) -> bytes:
    """Return the contents with gzip undone where they are zipped; DatasetError where that fails or never ends."""
    if not content.startswith(_GZIP_MAGIC):
        return content
    unpacked = bytearray()
    damaged = dataset_errors(f"{where}: not a readable .gz", "it is damaged, get it again", BROKEN_ARCHIVE)
    with damaged, gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
        while block := stream.read(_UNPACKED):
            unpacked += block
            if len(unpacked) > MOST_BYTES:
                raise DatasetError(
                    f"{where}: unpacks to more than {_gib(MOST_BYTES)}, which no file of this dataset does; do not "
                    "trust it, get it again"
                )
    return bytes(unpacked)


@contextmanager
def dataset_errors(
    problem: str, remedy: str, errors: type[Exception] | tuple[type[Exception], ...] = Exception
) -> Iterator[None]:
    """Turn errors of other code into DatasetError; a DatasetError passes as it is.

    Parameters
    ----------
    problem, remedy
        What the message says before and behind the error itself: what could not be done where, and what to do.
    errors
        Classes of errors that are turned; all of them where damaged data fail in any way that a parser's code can fail.
    """
    try:
        yield
    except DatasetError:
        raise
    except errors as error:
        raise DatasetError(f"{problem} ({reason(error)}); {remedy}") from error


def reason(error: BaseException) -> str:
    """Name an exception and its message in one printable line."""
    text = printable(" ".join(str(error).split())[:200])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def members(path: Path) -> Iterator[ArchiveMember]:
    """Yield what a .tar, .tar.gz or .zip holds, in its order; nothing is unpacked to disk.

    Contents must be read before the next member is asked for. Of a .tar.gz the whole stream is read, so that
    its checksum counts too.

    Raises
    ------
    DatasetError
        If the archive is cut short, damaged or of another format, names a place outside itself, or holds more than
        ``MOST_MEMBERS`` members or one of more than ``MOST_BYTES``.
    """
    with _readable(path):
        for count, member in enumerate(_zip_members(path) if _is_zip(path) else _tar_members(path)):
            require_fewer(count, path)
            if member.size > MOST_BYTES:
                raise DatasetError(
                    f"{path}: member {str(member.path)!r} unpacks to {_gib(member.size)}, more than any file of a "
                    "dataset holds; do not trust this archive, or leave that member out"
                )
            if member.path.is_absolute() or ".." in member.path.parts:
                raise DatasetError(
                    f"{path}: member {str(member.path)!r} points outside the archive; "
                    "this is not the published file, get it again"
                )
            # Contents are read in the caller's frame, where no handler of this function sees an error.
            yield member if member.read is None else replace(member, read=_guarded(path, member.read))


def archive_members(path: Path, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (member name, contents) of the files in an archive whose last name is in ``wanted``.

    Raises
    ------
    DatasetError
        As :func:`members`, or if it holds a wanted name twice, or a link or folder under a wanted name.
    """
    seen: set[str] = set()
    for member in members(path):
        name = member.path.name
        if name not in wanted:
            continue
        if member.read is None:
            raise DatasetError(f"{path}: member {str(member.path)!r} is not a plain file; get the archive again")
        if name in seen:
            raise DatasetError(f"{path}: holds {name!r} more than once; get the archive again")
        seen.add(name)
        yield str(member.path), member.read()


def archive_holds(path: Path, wanted: frozenset[str]) -> bool:
    """Whether a file is an archive with a plain file named in ``wanted`` (reads up to the first one)."""
    try:
        return any(member.read is not None and member.path.name in wanted for member in members(path))
    except DatasetError:
        return False


def _is_zip(path: Path) -> bool:
    # By its start: zipfile.is_zipfile looks for the end mark, which a .tar with a .zip in it has too.
    with path.open("rb") as file:
        return file.read(4) in _ZIP_MAGIC


def _tar_members(path: Path) -> Iterator[ArchiveMember]:
    with path.open("rb") as raw:
        zipped = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        raw.seek(0)
        plain = gzip.GzipFile(fileobj=raw) if zipped else raw
        bounded: Any = _Bounded(plain)
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            for info in archive:
                stream = archive.extractfile(info) if info.isfile() else None
                read = None if stream is None else stream.read
                yield ArchiveMember(PurePosixPath(info.name), read, info.isdir(), info.size)
            if plain.tell() < archive.offset + tarfile.BLOCKSIZE:
                # tarfile takes the end of the file, even within a header, for the end of the archive.
                raise DatasetError(f"{path}: a .tar without its end mark; it is cut short, get it again")
        # tarfile stops at its end mark; gzip checks its checksum only at the end of the stream.
        left = MOST_BYTES
        while left > 0 and (block := plain.read(_UNPACKED)):
            left -= len(block)
        if left <= 0:
            raise DatasetError(
                f"{path}: unpacks to more than {_gib(MOST_BYTES)} behind its end mark; do not trust this archive"
            )


def _zip_members(path: Path) -> Iterator[ArchiveMember]:
    with zipfile.ZipFile(path) as archive:
        # The directory has no checksum: where a length in it is damaged, an entry takes in those that follow.
        if any(_ZIP_ENTRY in info.extra + info.comment for info in archive.infolist()):
            raise zipfile.BadZipFile("an entry of its directory lies within another one")
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the system that packed it has no such kinds
            read = partial(archive.read, info) if kind in (0, stat.S_IFREG) and not info.is_dir() else None
            yield ArchiveMember(PurePosixPath(info.filename), read, info.is_dir(), info.file_size)


class _Bounded:
    """A stream for tarfile that is never asked for more than ``MOST_BYTES`` at once, as headers of a bad archive do."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile) -> None:
        self._stream = stream
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes."""
        if not 0 <= size <= MOST_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._stream.read(size)


def _memory() -> int:
    """Bytes of this machine's memory, in use or not."""
    return int(psutil.virtual_memory().total)


def _gib(size: int) -> str:
    return f"{size / 2**30:,.3g} GiB"


def _guarded(path: Path, read: Callable[[], bytes]) -> Callable[[], bytes]:
    def guarded() -> bytes:
        with _readable(path):
            return read()

    return guarded


def _readable(path: Path) -> AbstractContextManager[None]:
    problem, remedy = (
        "not a readable .tar, .tar.gz or .zip",
        "it is cut short, damaged or of another format, get it again",
    )
    return dataset_errors(f"{path}: {problem}", remedy, BROKEN_ARCHIVE)
