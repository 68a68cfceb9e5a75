"""One file over HTTP: resumed where it stopped, tried again where that may help, checked, and only then named.

Pooch was looked at for this: its HTTP downloader starts every file anew, which is what a slow server punishes.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import requests
from filelock import FileLock, Timeout

from advntk_dist.data.files import reason
from advntk_dist.data.sources import SOURCES, RemoteFile, default_folder, fetched
from advntk_dist.errors import DatasetError, FetchError
from advntk_dist.text import did_you_mean

if TYPE_CHECKING:
    from advntk_dist.progress import Display

Advance = Callable[[int, bool], None]
"""Called with bytes that are there, and whether they came now (True) or were found (False)."""

_BLOCK = 2**16
_TIMEOUT = (15.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""
_TRIES = 6
"""Attempts in a row that may bring nothing new."""
_LONGEST_WAIT = 30.0
_DEEPEST = 10
"""Exceptions inside one another that are looked through."""
_MIRROR = "give another copy with advntk data fetch --mirror"
_FOLDER = "give another folder with advntk data fetch --to, or set ADVNTK_DATA"
_HOPELESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.TooManyRedirects,
)
_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))


class _Passing(Exception):
    """A failure that another attempt may mend; ``wait`` is the server's wish in seconds, where it has one."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def download(
    url: str,
    file: RemoteFile,
    folder: Path,
    advance: Advance,
    *,
    sleep: Callable[[float], None] = time.sleep,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Get one file into a folder; what is there already and right is kept.

    Bytes go to ``NAME.part``, which a later call goes on with; the file gets its name once its sha256 is right.

    Parameters
    ----------
    url
        Address of the file.
    file
        Its name, length and checksum.
    folder
        Where to put it; made where it is missing.
    advance
        Told of bytes found and bytes received.
    sleep
        Waits between attempts, in seconds.
    say
        Told in words why an attempt failed and when the next one comes.

    Raises
    ------
    FetchError
        If the server has no such file or another one, cannot be reached in some attempts, the checksum is wrong, the
        folder cannot be written, or another process is at the same file.
    """
    target, part = folder / file.name, folder / f"{file.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{file.name}.lock", timeout=0):
            if target.is_file() and target.stat().st_size == file.size and _sha256(target) == file.sha256:
                advance(file.size, False)
                return target
            _receive(url, file, part, advance, sleep, say or _silent)
            part.replace(target)
    except Timeout as error:
        raise FetchError(f"{target}: another process is fetching it; wait for that one") from error
    except FetchError:
        raise
    except OSError as error:
        raise FetchError(f"{folder}: cannot be written ({reason(error)}); {_FOLDER}") from error
    return target


def _receive(
    url: str,
    file: RemoteFile,
    part: Path,
    advance: Advance,
    sleep: Callable[[float], None],
    say: Callable[[str], None],
) -> None:
    found = _size(part)
    advance(min(found, file.size), False)
    fruitless = 0
    while True:
        before = _size(part)
        try:
            if before != file.size:
                _append(url, file, part, advance)
            if _sha256(part) == file.sha256:
                return
            part.unlink()
            if not found:
                raise FetchError(
                    f"{url}: what came has another sha256 than the published file ({file.sha256}); it was removed, try "
                    f"again later or {_MIRROR}"
                )
            advance(-file.size, True)
            found = 0  # an old .part was of another file: once more from the start
        except _Passing as error:
            fruitless = 1 if _size(part) > before else fruitless + 1
            if fruitless == _TRIES:
                raise FetchError(
                    f"{url}: {error}; {_size(part):,} of {file.size:,} bytes are kept, the same command goes on there"
                ) from error
            wait = min(error.wait if error.wait is not None else 2.0 ** (fruitless - 1), _LONGEST_WAIT)
            say(f"{file.name}: {error}, retrying in {wait:.0f} s")
            sleep(wait)


def _append(url: str, file: RemoteFile, part: Path, advance: Advance) -> None:
    """Ask for what is missing of the file and write it behind what is there; raise _Passing if it stops early."""
    have = _size(part)
    if have > file.size:
        part.unlink()
        advance(-file.size, True)
        have = 0
    # Content encodings would make byte counts and ranges those of something else.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            start = _start(response, url, file, part, advance)
            advance(start - have, True)
            with part.open("r+b" if start else "wb") as out:
                out.seek(start)
                for block in response.iter_content(_BLOCK):
                    start += len(block)
                    if start > file.size:
                        raise FetchError(f"{url}: more than the {file.size:,} bytes of the published file; {_MIRROR}")
                    out.write(block)
                    advance(len(block), True)
    except _HOPELESS as error:
        raise FetchError(f"{url}: cannot be asked for ({reason(error)}); {_MIRROR}") from error
    except requests.RequestException as error:
        raise _Passing(f"the connection failed ({_why(error)})") from error
    if start < file.size:
        raise _Passing(f"the connection ended after {start:,} of {file.size:,} bytes")


def _why(error: requests.RequestException) -> str:
    """The cause at the bottom of a failed request, without the library's own names."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no answer in {_TIMEOUT[0]:.0f} s"
    if isinstance(error, requests.exceptions.ReadTimeout):
        return f"nothing came for {_TIMEOUT[1]:.0f} s"
    cause: BaseException = error
    for _ in range(_DEEPEST):
        cause = _inside(cause) or cause
    text = getattr(cause, "strerror", None) or str(cause).rpartition(": ")[2] or type(cause).__name__
    return " ".join(str(text).split())


def _inside(error: BaseException) -> BaseException | None:
    """The exception that another one was made from, as requests and urllib3 keep it."""
    kept = (getattr(error, "reason", None), *error.args, error.__cause__, error.__context__)
    return next((inner for inner in kept if isinstance(inner, BaseException) and inner is not error), None)


def _silent(text: str) -> None:
    """Say nothing."""


def _start(response: requests.Response, url: str, file: RemoteFile, part: Path, advance: Advance) -> int:
    """Where in the file the body of a response starts."""
    status, have = response.status_code, _size(part)
    if status in _PASSING:
        wish = response.headers.get("Retry-After", "")
        raise _Passing(f"the server answers {status} {response.reason}", float(wish) if wish.isdigit() else None)
    if status == 206:
        sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if sent and int(sent[1]) == have and sent[2] in ("*", str(file.size)):
            return have
        part.unlink()
        advance(-have, True)
        raise _Passing(f"the server sent {response.headers.get('Content-Range', 'no range')!r} for bytes {have} on")
    if status != 200:
        raise FetchError(f"{url}: the server answers {status} {response.reason}; {_MIRROR}")
    length = response.headers.get("Content-Length", str(file.size))
    if length != str(file.size):
        raise FetchError(f"{url}: the server offers {length} bytes, the published file has {file.size}; {_MIRROR}")
    return 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_UNIT = 2**20


def fetch(
    name: str,
    to: Path | None = None,
    *,
    mirror: str | None = None,
    display: Display,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Download a dataset from where it is published; what an earlier call brought is kept and gone on with.

    Parameters
    ----------
    name
        A name of ``SOURCES``.
    to
        Folder for the files; by default :func:`default_folder`, where ``data.name`` alone finds them.
    mirror
        Address of a folder with the same files, in place of the publisher's; the checksums are the same.
    display
        Shows the progress, in MiB.
    sleep
        Waits between attempts, in seconds.

    Returns
    -------
    Path
        The folder with the files.

    Raises
    ------
    DatasetError
        If there is no dataset of this name to fetch.
    FetchError
        If a file cannot be had whole and sound; see :func:`download`.
    """
    source = SOURCES.get(name)
    if source is None:
        raise DatasetError(f"no dataset {name!r} to fetch{did_you_mean(name, SOURCES)}; there are {', '.join(SOURCES)}")
    folder = default_folder(name) if to is None else to.expanduser()
    base = source.url if mirror is None else mirror.rstrip("/") + "/"
    for file in source.files:
        with display.stage(file.name, -(-file.size // _UNIT), "MiB") as advance:
            place = urljoin(base, file.name)
            download(place, file, folder, _in_mebibytes(advance, file.size), sleep=sleep, say=display.say)
    return folder


def fetch_if_missing(name: str, path: str | None, *, display: Display) -> None:
    """Download a published dataset that is named without a path and is not here yet; do nothing for all others.

    Raises
    ------
    FetchError
        If a file cannot be had whole and sound; see :func:`download`.
    """
    if path is None and name in SOURCES and fetched(name) is None:
        fetch(name, display=display)


def _in_mebibytes(advance: Callable[[int, bool], None], size: int) -> Callable[[int, bool], None]:
    done, shown = 0, 0

    def advance_bytes(count: int, fresh: bool) -> None:
        nonlocal done, shown
        done += count
        units = -(-done // _UNIT) if done == size else done // _UNIT
        if units != shown:
            advance(units - shown, fresh)
            shown = units

    return advance_bytes
