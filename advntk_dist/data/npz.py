"""Anybody's own images in a NumPy archive: arrays x and y, and optionally classes, x_test and y_test."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from advntk_dist.data.arrays import NAMES, assemble
from advntk_dist.data.dataset import Dataset
from advntk_dist.data.files import reason, require_path
from advntk_dist.errors import DatasetError

_WHAT = "a .npz file with arrays x (n, H, W, C) or (n, H, W) uint8 and y (n,) integers"
_BROKEN_ARCHIVE = (
    OSError,
    ValueError,  # object arrays, bad headers
    EOFError,
    KeyError,
    MemoryError,  # a header with an impossible shape
    RuntimeError,  # encrypted members
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(path: Path | None) -> Dataset:
    """Read a .npz file; ``x_test`` and ``y_test``, where present, become the publisher's test set.

    Class names come from the string array ``classes``, or are "0", "1", ... up to the largest label. Arrays
    under other names are left alone.

    Raises
    ------
    DatasetError
        If the file is cut short, damaged, not a .npz, lacks x or y, or holds arrays of another type or shape;
        nothing in it is ever unpickled.
    """
    place = require_path(path, "npz", _WHAT)
    arrays = _load(place)
    return assemble(arrays, place, _WHAT)


def holds_npz(path: Path) -> bool:
    """Whether a file is a zip archive with at least one .npy member."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _load(place: Path) -> dict[str, np.ndarray]:
    try:
        loaded = np.load(place, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DatasetError(f"{place}: is a single array (.npy); it must be {_WHAT}")
        with loaded as archive:
            arrays = {name: archive[name] for name in NAMES if name in archive}
    except DatasetError:
        raise
    except _BROKEN_ARCHIVE as error:
        raise DatasetError(
            f"{place}: not a readable .npz file ({reason(error)}); it is cut short, damaged, "
            f"of another format, or holds Python objects; it must be {_WHAT}"
        ) from error
    raw = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if raw:
        raise DatasetError(f"{place}: {raw[0]} is not a NumPy array; it must be {_WHAT}")
    return arrays
