"""All files of a published dataset, brought to this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from advntk_dist.data.download import download
from advntk_dist.data.sources import SOURCES, default_folder, fetched
from advntk_dist.errors import DatasetError
from advntk_dist.suggest import did_you_mean

if TYPE_CHECKING:
    from advntk_dist.progress import Display

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
