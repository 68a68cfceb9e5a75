"""Anybody's own images in a NumPy archive, in one of the layouts of :mod:`advntk_dist.data.arrays`."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from advntk_dist.data.arrays import WHAT, Layout, assemble, choose_layout
from advntk_dist.data.dataset import Dataset
from advntk_dist.data.files import reason, require_path, require_room
from advntk_dist.errors import DatasetError

_WHAT = f"a .npz file {WHAT}"
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
    """Read a .npz file with arrays x and y, or Keras' x_train and y_train, or MedMNIST's train_images and train_labels.

    Validation and test arrays (``x_val``, ``y_val``, ``x_test``, ``y_test``, or MedMNIST's), where present, become the
    publisher's own parts. Class names come from the string array ``classes``, or are "0", "1", ... up to the largest
    label. Arrays under other names are left alone. For images of floats see :func:`assemble`.

    Raises
    ------
    DatasetError
        If the file is cut short, damaged, not a .npz, lacks images or labels, holds more than this machine's memory, or
        holds arrays of another type, shape or scale; nothing in it is ever unpickled.
    """
    place = require_path(path, "npz", _WHAT)
    arrays, layout = _load(place)
    return assemble(arrays, layout, place)


def holds_npz(path: Path) -> bool:
    """Whether a file is a zip archive with at least one .npy member."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _load(place: Path) -> tuple[dict[str, np.ndarray], Layout]:
    try:
        loaded = np.load(place, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DatasetError(f"{place}: is a single array (.npy); it must be {_WHAT}")
        with loaded as archive:
            layout = choose_layout(archive.files, place, _WHAT)
            wanted = [name for name in layout.names if name in archive.files]
            held = [] if archive.zip is None else archive.zip.infolist()
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in held}
            require_room(sum(sizes.get(name, 0) for name in wanted), str(place))
            arrays = {name: archive[name] for name in wanted}
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
    return arrays, layout
