"""The published datasets, as ``sources.toml`` lists them, and the folders that hold what was downloaded of them."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

FOLDER_VARIABLE = "ADVNTK_DATA"
"""Environment variable with the folder of downloaded datasets."""


@dataclass(frozen=True)
class RemoteFile:
    """One published file: its name, its length in bytes and its sha256 in hexadecimal digits."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """One published dataset: the address of the folder with its files, which ends in a slash, and the files."""

    url: str
    files: tuple[RemoteFile, ...]


def _read_sources() -> dict[str, Source]:
    tables = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {
        name: Source(table["url"], tuple(RemoteFile(**file) for file in table["files"]))
        for name, table in tables.items()
    }


SOURCES = _read_sources()
"""The published datasets by name."""


def default_folder(name: str) -> Path:
    """The folder that ``advntk data fetch NAME`` fills, in which a dataset named without a path is looked for.

    ``$ADVNTK_DATA/NAME``; without that variable ``advntk-dist/NAME`` in ``$XDG_CACHE_HOME``, which is ``~/.cache`` by
    default. Nodes of a cluster need no copy: the images are read where the command runs.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser() / name
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "advntk-dist" / name


def fetched(name: str) -> Path | None:
    """The default folder of a published dataset if it holds all of its files, else None."""
    source = SOURCES.get(name)
    folder = default_folder(name)
    if source is None or not all((folder / file.name).is_file() for file in source.files):
        return None
    return folder
