"""Downloads of published datasets: resumed where they stopped, repeated where that may help, checked by their sha256.

``urllib3.util.Retry`` decides how often and how long to wait, both for requests that fail and for answers that end
early. It does not resume these itself, and neither does Pooch, which starts every file anew.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.client import responses as PHRASES
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import requests
from filelock import FileLock, Timeout
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry

from advntk_dist.data.files import reason
from advntk_dist.data.sources import SOURCES, RemoteFile, default_folder, fetched
from advntk_dist.errors import DatasetError, FetchError
from advntk_dist.text import did_you_mean

if TYPE_CHECKING:
    from advntk_dist.progress import Display

Advance = Callable[[int, bool], None]
"""Called with a number of bytes, and whether they came now (True) or were found on disk (False)."""

_MIB = 2**20
_BLOCK = 2**16
"""Bytes written at a time."""
_TIMEOUT = (15.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""
_RETRIES = 5
"""Further attempts in a row that may bring nothing new."""
_LONGEST_WAIT = 30.0
"""Seconds between two attempts at the most, whatever the server asks for."""
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses of an answer that another attempt may mend."""
_MIRROR = "give another copy with advntk data fetch --mirror"
_FOLDER = "give another folder with advntk data fetch --to, or set ADVNTK_DATA"
_HOPELESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.TooManyRedirects,
)


def fetch(name: str, to: Path | None = None, *, mirror: str | None = None, display: Display) -> Path:
    """Download a published dataset; what an earlier call brought is kept and completed.

    Parameters
    ----------
    name
        A name of ``SOURCES``.
    to
        Folder for the files; by default :func:`default_folder`, in which ``data.name`` alone finds them.
    mirror
        Address of a folder with the same files, in place of the publisher's; the checksums are the same.
    display
        Display of the progress, in MiB.

    Returns
    -------
    Path
        The folder with the files.

    Raises
    ------
    DatasetError
        If no published dataset has this name.
    FetchError
        If a file cannot be had whole and sound; see :func:`download`.
    """
    source = SOURCES.get(name)
    if source is None:
        raise DatasetError(f"no dataset {name!r} to fetch{did_you_mean(name, SOURCES)}; there are {', '.join(SOURCES)}")
    folder = default_folder(name) if to is None else to.expanduser()
    base = source.url if mirror is None else mirror.rstrip("/") + "/"
    for file in source.files:
        with display.stage(file.name, -(-file.size // _MIB), "MiB") as advance:
            download(urljoin(base, file.name), file, folder, _in_mebibytes(advance, file.size), say=display.say)
    return folder


def fetch_if_missing(name: str, path: str | None, *, display: Display) -> None:
    """Download a published dataset that is named without a path and is not in its default folder; else do nothing.

    Raises
    ------
    FetchError
        If a file cannot be had whole and sound; see :func:`download`.
    """
    if path is None and name in SOURCES and fetched(name) is None:
        fetch(name, display=display)


def download(
    url: str, file: RemoteFile, folder: Path, advance: Advance, *, say: Callable[[str], None] = lambda text: None
) -> Path:
    """Download one file into a folder, unless it is there already and right.

    Bytes go to ``NAME.part``, which a later call completes; the file gets its name once its sha256 is right.

    Parameters
    ----------
    url
        Address of the file.
    file
        Its name, length and checksum.
    folder
        Folder for the file, made where it is missing.
    advance
        Function that is called with the bytes found and the bytes received.
    say
        Function that is called with a line on why an attempt failed and when the next one comes.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FetchError
        If the server has no such file or another one, fails in several attempts, the checksum is wrong, the folder
        cannot be written, or another process downloads the same file.
    """
    target, part = folder / file.name, folder / f"{file.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{file.name}.lock", timeout=0):
            if target.is_file() and target.stat().st_size == file.size and _sha256(target) == file.sha256:
                advance(file.size, False)
                return target
            _receive(url, file, part, advance, _Retries(_RETRIES, say=say, subject=file.name))
            part.replace(target)
    except Timeout as error:
        raise FetchError(f"{target}: another process is fetching it; wait for that one") from error
    except FetchError:
        raise
    except OSError as error:
        raise FetchError(f"{folder}: cannot be written ({reason(error)}); {_FOLDER}") from error
    return target


class _EndedEarlyError(Exception):
    """An answer that ended before the file did; the next request goes on behind what came."""


class _Retries(Retry):
    """The retries of urllib3, each announced in a line, with waits of at most ``_LONGEST_WAIT``.

    Parameters
    ----------
    total
        Number of attempts that may follow the first one.
    say
        Function that is called with the line.
    subject
        Name of the file, with which the line begins.
    """

    def __init__(self, total: int, *, say: Callable[[str], None], subject: str, **more: Any) -> None:
        more.update(backoff_factor=1.0, status_forcelist=_PASSING, raise_on_status=False)
        super().__init__(total, **more)
        self._say, self._subject = say, subject

    def new(self, **changes: Any) -> _Retries:
        """These retries with some changes, as urllib3 makes them after each attempt."""
        return super().new(say=self._say, subject=self._subject, **changes)

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Wait for as long as the server asks, else for 0, 2, 4, ... seconds."""
        asked = None if response is None else self.get_retry_after(response)
        wait = min(self.get_backoff_time() if asked is None else asked, _LONGEST_WAIT)
        failed = self.history[-1]
        why = _answer(failed.status) if failed.error is None and failed.status else _why(failed.error)
        self._say(f"{self._subject}: {why}, retrying in {wait:.0f} s")
        time.sleep(wait)


def _receive(url: str, file: RemoteFile, part: Path, advance: Advance, fresh: _Retries) -> None:
    """Complete the ``.part`` of a file until its sha256 is right."""
    found = _size(part)
    advance(min(found, file.size), False)
    retries = fresh
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=fresh))
        while True:
            before = _size(part)
            try:
                if before != file.size:
                    _append(session, url, file, part, advance)
            except _EndedEarlyError as error:
                try:
                    retries = (fresh if _size(part) > before else retries).increment("GET", url, error=error)
                except MaxRetryError:
                    raise _kept(url, error, file, part) from error
                retries.sleep()
                continue
            if _sha256(part) == file.sha256:
                return
            part.unlink()
            if not found:
                raise FetchError(
                    f"{_shown(url)}: what came has another sha256 than the published file ({file.sha256}); it was "
                    f"removed, try again later or {_MIRROR}"
                )
            advance(-file.size, True)
            found = 0  # an old .part was of another file: once more from the start


def _append(session: requests.Session, url: str, file: RemoteFile, part: Path, advance: Advance) -> None:
    """Request what is missing of a file and write it behind what is there; _EndedEarlyError where less comes."""
    have = _size(part)
    if have > file.size:
        part.unlink()
        advance(-file.size, True)
        have = 0
    # Content encodings would make byte counts and ranges those of something else.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = session.get(url, headers=headers, stream=True, timeout=_TIMEOUT)
    except _HOPELESS as error:
        raise FetchError(f"{_shown(url)}: cannot be asked for ({type(error).__name__}); {_MIRROR}") from error
    except requests.RequestException as error:
        raise _kept(url, _why(error), file, part) from error
    with response:
        start = _start(response, url, file, part, advance)
        advance(start - have, True)
        with part.open("r+b" if start else "wb") as out:
            out.seek(start)
            try:
                for block in response.iter_content(_BLOCK):
                    start += len(block)
                    if start > file.size:
                        raise FetchError(
                            f"{_shown(url)}: more than the {file.size:,} bytes of the published file; {_MIRROR}"
                        )
                    out.write(block)
                    advance(len(block), True)
            except requests.RequestException as error:
                raise _EndedEarlyError(_why(error)) from error
    if start < file.size:
        raise _EndedEarlyError(f"the connection ended after {start:,} of {file.size:,} bytes")


def _start(response: requests.Response, url: str, file: RemoteFile, part: Path, advance: Advance) -> int:
    """Position in the file, in bytes, at which the body of a response starts."""
    status, have = response.status_code, _size(part)
    if status in _PASSING:
        raise _kept(url, _answer(status), file, part)
    if status == HTTPStatus.PARTIAL_CONTENT:
        sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if sent and int(sent[1]) == have and sent[2] in ("*", str(file.size)):
            return have
        part.unlink(missing_ok=True)
        advance(-have, True)
        shown = response.headers.get("Content-Range", "no range")
        raise _EndedEarlyError(f"the server sent {shown!r} for bytes {have} on")
    if status != HTTPStatus.OK:
        raise FetchError(f"{_shown(url)}: {_answer(status)}; {_MIRROR}")
    length = response.headers.get("Content-Length", str(file.size))
    if length != str(file.size):
        raise FetchError(
            f"{_shown(url)}: the server offers {length} bytes, the published file has {file.size}; {_MIRROR}"
        )
    return 0


def _kept(url: str, why: object, file: RemoteFile, part: Path) -> FetchError:
    """The error that ends a download which the same command may complete later."""
    return FetchError(
        f"{_shown(url)}: {why}; {_size(part):,} of {file.size:,} bytes are kept, the same command goes on there"
    )


def _answer(status: int) -> str:
    """What a server answers, by the standard's name of the status."""
    return f"the server answers {status} {PHRASES.get(status, '')}".rstrip()


def _why(error: BaseException | None) -> str:
    """Why a request failed: the cause at the bottom of its exception, without addresses and the libraries' names."""
    if isinstance(error, _EndedEarlyError):
        return str(error)
    causes = list(_causes(error))
    names = {type(cause).__name__ for cause in causes}
    if "ConnectTimeoutError" in names:
        text = f"no answer in {_TIMEOUT[0]:.0f} s"
    elif "ReadTimeoutError" in names:
        text = f"nothing came for {_TIMEOUT[1]:.0f} s"
    else:
        text = getattr(causes[-1], "strerror", None) or str(causes[-1]).rpartition(": ")[2] or type(causes[-1]).__name__
    return f"the connection failed ({' '.join(str(text).split())})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those inside it, which requests and urllib3 keep as arguments, causes or contexts."""
    while error is not None:
        yield error
        inside = (*error.args, error.__cause__, error.__context__)
        error = next((inner for inner in inside if isinstance(inner, BaseException)), None)


def _shown(url: str) -> str:
    """An address without the user name and the password that it may hold."""
    return re.sub(r"//.*@", "//", url)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _in_mebibytes(advance: Advance, size: int) -> Advance:
    """``advance`` in whole MiB, as a function that is called with bytes; the last one may be a part of a MiB."""
    done, shown = 0, 0

    def advance_bytes(count: int, fresh: bool) -> None:
        nonlocal done, shown
        done += count
        units = -(-done // _MIB) if done == size else done // _MIB
        if units != shown:
            advance(units - shown, fresh)
            shown = units

    return advance_bytes
