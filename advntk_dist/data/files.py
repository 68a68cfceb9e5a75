"""Reading dataset files into memory, with every failure turned into one line that names the file."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from advntk_dist.errors import DatasetError

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_BROKEN_ARCHIVE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,  # encrypted or unknown compression in a .zip
    ValueError,
)


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive; ``read`` gives the contents of a plain file, and is None for all else."""

    path: PurePosixPath
    read: Callable[[], bytes] | None
    is_folder: bool


def require_path(path: Path | None, name: str, what: str) -> Path:
    """Return ``path`` if something is there; else raise DatasetError: dataset ``name`` needs ``what``."""
    if path is None:
        raise DatasetError(f"dataset {name!r} is not shipped with this package: set data.path to {what}")
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder; set data.path to {what}")
    return path


def read_bytes(path: Path) -> bytes:
    """Return the contents of a file; DatasetError where the system will not read it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({reason(error)}); check the path and its permissions") from error


def gunzip(content: bytes, where: str) -> bytes:
    """Return the contents with gzip undone where they are zipped; DatasetError where that fails."""
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except _BROKEN_ARCHIVE as error:
        raise DatasetError(f"{where}: not a readable .gz ({reason(error)}); it is damaged, get it again") from error


def reason(error: BaseException) -> str:
    """Name an exception and its message in one line."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def members(path: Path) -> Iterator[Member]:
    """Yield what a .tar, .tar.gz or .zip holds, in its order; nothing is unpacked to disk.

    Contents must be read before the next member is asked for. Of a .tar.gz the whole stream is read, so that
    its checksum counts too.

    Raises
    ------
    DatasetError
        If the archive is cut short, damaged or of another format, or names a place outside itself.
    """
    with _readable(path):
        for member in _zip_members(path) if _is_zip(path) else _tar_members(path):
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


def _tar_members(path: Path) -> Iterator[Member]:
    with path.open("rb") as raw:
        zipped = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        raw.seek(0)
        plain = gzip.GzipFile(fileobj=raw) if zipped else raw
        with tarfile.open(fileobj=plain, mode="r:") as archive:
            for info in archive:
                stream = archive.extractfile(info) if info.isfile() else None
                yield Member(PurePosixPath(info.name), None if stream is None else stream.read, info.isdir())
            if plain.tell() < archive.offset + tarfile.BLOCKSIZE:
                # tarfile takes the end of the file, even within a header, for the end of the archive.
                raise DatasetError(f"{path}: a .tar without its end mark; it is cut short, get it again")
        # tarfile stops at its end mark; gzip checks its checksum only at the end of the stream.
        while plain.read(2**20):
            pass


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            read = None if info.is_dir() else partial(archive.read, info)
            yield Member(PurePosixPath(info.filename), read, info.is_dir())


def _guarded(path: Path, read: Callable[[], bytes]) -> Callable[[], bytes]:
    def guarded() -> bytes:
        with _readable(path):
            return read()

    return guarded


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except DatasetError:
        raise
    except _BROKEN_ARCHIVE as error:
        raise DatasetError(
            f"{path}: not a readable .tar, .tar.gz or .zip ({reason(error)}); "
            "it is cut short, damaged or of another format, get it again"
        ) from error
