"""Reading dataset files whole, into memory, with every failure turned into one line that names the file."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from advntk_dist.errors import DatasetError

_GZIP_MAGIC = b"\x1f\x8b"
_BROKEN_ARCHIVE = (tarfile.TarError, zlib.error, EOFError, OSError, OverflowError, ValueError)


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


def reason(error: BaseException) -> str:
    """Name an exception and its message in one line."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def archive_members(path: Path, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (member name, contents) of the files in a .tar or .tar.gz whose last name is in ``wanted``.

    Nothing is unpacked to disk. Of a .tar.gz the whole stream is read, so that its checksum counts too.

    Raises
    ------
    DatasetError
        If the archive is cut short, damaged or of another format, names a place outside itself, holds a
        wanted name twice, or holds a link or folder under a wanted name.
    """
    with _open_archive(path) as archive:
        seen: set[str] = set()
        for member in archive:
            inside = PurePosixPath(member.name)
            if inside.is_absolute() or ".." in inside.parts:
                raise DatasetError(
                    f"{path}: member {member.name!r} points outside the archive; "
                    "this is not the published file, get it again"
                )
            if inside.name not in wanted:
                continue
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None:
                raise DatasetError(f"{path}: member {member.name!r} is not a plain file; get the archive again")
            if inside.name in seen:
                raise DatasetError(f"{path}: holds {inside.name!r} more than once; get the archive again")
            seen.add(inside.name)
            yield member.name, stream.read()
        # tarfile stops at its end mark; gzip checks its checksum only at the end of the stream.
        while archive.fileobj is not None and archive.fileobj.read(2**20):
            pass


def archive_holds(path: Path, wanted: frozenset[str]) -> bool:
    """Whether a file is a .tar or .tar.gz with a member named in ``wanted`` (reads up to the first one)."""
    try:
        with _open_archive(path) as archive:
            return any(PurePosixPath(member.name).name in wanted for member in archive)
    except DatasetError:
        return False


@contextmanager
def _open_archive(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with path.open("rb") as raw:
            zipped = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            raw.seek(0)
            plain = gzip.GzipFile(fileobj=raw) if zipped else raw
            with tarfile.open(fileobj=plain, mode="r:") as archive:
                yield archive
    except DatasetError:
        raise
    except _BROKEN_ARCHIVE as error:
        raise DatasetError(
            f"{path}: not a readable .tar or .tar.gz archive ({reason(error)}); "
            "it is cut short, damaged or of another format, get it again"
        ) from error
