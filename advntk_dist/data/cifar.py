"""CIFAR-10 in both of its published layouts, from a folder or from the archive as downloaded.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Binary layout: records
of one label byte and 3,072 pixel bytes. Python layout: pickled dicts with ``data`` (n, 3072) uint8 and
``labels``. Pixels are channel-major in both: 1,024 red, 1,024 green, 1,024 blue, each row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from advntk_dist.data.dataset import Dataset, check_labels, describe
from advntk_dist.data.files import archive_holds, archive_members, read_bytes, require_path
from advntk_dist.data.unpickle import load_pickled_arrays
from advntk_dist.errors import DatasetError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_SIDE, _CHANNELS = 32, 3
_PIXELS = _SIDE * _SIDE * _CHANNELS
_RECORD = 1 + _PIXELS
_BATCHES = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
_SUFFIXES = (".bin", "")
"""Binary first: where both layouts lie side by side (they hold the same images), no pickle needs opening."""
_WANTED = frozenset(batch + suffix for batch in _BATCHES for suffix in _SUFFIXES)
_FOLDERS = (".", "cifar-10-batches-bin", "cifar-10-batches-py")
_WHAT = (
    "the folder cifar-10-batches-bin or cifar-10-batches-py, the folder around it, "
    "or cifar-10-binary.tar.gz or cifar-10-python.tar.gz"
)


def read_cifar10(path: Path | None) -> Dataset:
    """Read CIFAR-10: the rows of data_batch_1..5 in file order, then those of test_batch as the test set.

    Parameters
    ----------
    path
        Folder of either layout, the folder around it, or the archive (.tar.gz or .tar) as published.

    Raises
    ------
    DatasetError
        If a batch is missing, cut short, damaged, or not of this format; the message names the file.
    """
    place = require_path(path, "cifar10", _WHAT)
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, where, content in _files(place):
        batches[name] = (_parse_binary if name.endswith(".bin") else _parse_python)(content, where)
    suffix = next((s for s in _SUFFIXES if any(batch + s in batches for batch in _BATCHES)), None)
    if suffix is None:
        raise DatasetError(f"{place}: holds none of CIFAR-10's batches; set data.path to {_WHAT}")
    missing = [batch + suffix for batch in _BATCHES if batch + suffix not in batches]
    if missing:
        raise DatasetError(f"{place}: {', '.join(missing)} missing; CIFAR-10 has six batches, get it again")
    ordered = [batches.pop(batch + suffix) for batch in _BATCHES]
    x = np.concatenate([images for images, _ in ordered])
    y = np.concatenate([labels for _, labels in ordered])
    x.setflags(write=False)
    return Dataset("cifar10", x, y, CIFAR10_CLASSES, test_start=len(x) - len(ordered[-1][0]))


def holds_cifar10(path: Path) -> bool:
    """Whether a folder or archive has at least one file that is named as CIFAR-10's batches are."""
    if path.is_dir():
        return any((path / folder / name).exists() for folder in _FOLDERS for name in _WANTED)
    return archive_holds(path, _WANTED)


def _files(place: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (batch file name, where it lies, contents)."""
    if not place.is_dir():
        for member, content in archive_members(place, _WANTED):
            yield PurePosixPath(member).name, f"{place}:{member}", content
        return
    for suffix in _SUFFIXES:
        for folder in _FOLDERS:
            found = [batch + suffix for batch in _BATCHES if (place / folder / (batch + suffix)).exists()]
            for name in found:
                yield name, str(place / folder / name), read_bytes(place / folder / name)
            if found:
                return


def _parse_binary(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not content or len(content) % _RECORD:
        raise DatasetError(
            f"{where}: {len(content):,} bytes are not a whole number of {_RECORD:,}-byte CIFAR-10 records; "
            "it is cut short or of another format, get it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    return _batch(records[:, 1:], records[:, 0], where)


def _parse_python(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    fields = load_pickled_arrays(content, where)
    data, labels = fields.get("data"), fields.get("labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_PIXELS,):
        raise DatasetError(
            f"{where}: 'data' is {describe(data)}, not uint8 of shape (n, {_PIXELS}); "
            "it is not a CIFAR-10 batch, get it again"
        )
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DatasetError(
            f"{where}: 'labels' is {describe(labels)}, not a list of whole numbers; "
            "it is not a CIFAR-10 batch, get it again"
        )
    if len(labels) != len(data) or not labels:
        raise DatasetError(f"{where}: {len(data)} images and {len(labels)} labels; it is damaged, get it again")
    return _batch(data, np.array(labels, dtype=object), where)


def _batch(pixels: np.ndarray, labels: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    check_labels(labels, len(CIFAR10_CLASSES), where)
    images = pixels.reshape(-1, _CHANNELS, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.int64)
