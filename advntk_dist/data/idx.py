"""MNIST and Fashion-MNIST: IDX files, plain or gzipped, under the four names that both sets share.

Sources: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits"; H. Xiao, K. Rasul,
R. Vollgraf, "Fashion-MNIST", arXiv 1708.07747. An IDX file is a magic number (0, 0, type, number of axes), the
length of each axis as a big-endian 32-bit number, and the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from advntk_dist.data.dataset import Dataset, check_labels
from advntk_dist.data.files import gunzip, read_bytes, require_path
from advntk_dist.errors import DatasetError

_PARTS = ("train", "t10k")
_SIDE = 28
_UINT8 = 8
_STANDARD = (60_000, 10_000)


@dataclass(frozen=True)
class IdxKind:
    """What tells one of the two datasets from the other.

    Parameters
    ----------
    name, title
        Its name here and in messages.
    classes
        Class names; the label is the position.
    folders
        Folders that may hold the files, as seen from the path that is given.
    first
        First ten labels of its training and of its test images.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    folders: tuple[str, ...]
    first: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def what(self) -> str:
        """Description of the files, for messages."""
        return (
            "the folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
            f"t10k-labels-idx1-ubyte, plain or .gz (advntk data fetch {self.name})"
        )


MNIST = IdxKind(
    name="mnist",
    title="MNIST",
    classes=tuple("0123456789"),
    folders=(".", "raw", "MNIST/raw"),
    first=((5, 0, 4, 1, 9, 2, 1, 3, 1, 4), (7, 2, 1, 0, 4, 1, 4, 9, 5, 9)),
)
FASHION_MNIST = IdxKind(
    name="fashion-mnist",
    title="Fashion-MNIST",
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    folders=(".", "raw", "FashionMNIST/raw"),
    first=((9, 0, 0, 3, 0, 2, 7, 2, 5, 5), (9, 2, 1, 1, 6, 1, 4, 6, 5, 7)),
)


def read_idx(kind: IdxKind, path: Path | None) -> Dataset:
    """Read MNIST or Fashion-MNIST: the training images, then the t10k ones as the test set.

    Parameters
    ----------
    kind
        ``MNIST`` or ``FASHION_MNIST``.
    path
        Folder with the four files, each plain or ``.gz`` (plain first, where both are there).

    Returns
    -------
    Dataset
        Images (n, 28, 28, 1) uint8.

    Raises
    ------
    DatasetError
        If a file is missing, cut short, damaged, or of another shape, a label is out of range, or the first labels
        of a set of the published size are those of the other dataset.
    """
    place = require_path(path, kind.name, kind.what)
    parts = [(_images(place, kind, part), _labels(place, kind, part)) for part in _PARTS]
    for part, (x, y) in zip(_PARTS, parts, strict=True):
        if len(x) != len(y):
            raise DatasetError(f"{place}: {part} has {len(x)} images but {len(y)} labels; get all four files again")
    sizes = tuple(len(y) for _, y in parts)
    for other in (MNIST, FASHION_MNIST):
        if other is not kind and sizes == _STANDARD and _starts_as(other, [y for _, y in parts]):
            raise DatasetError(f'{place}: these are the labels of {other.title}; set data.name = "{other.name}"')
    pieces = [(part, x[..., None], y) for part, (x, y) in zip(("train", "test"), parts, strict=True)]
    return Dataset.joined(kind.name, pieces, kind.classes)


def holds_idx(kind: IdxKind, path: Path) -> bool:
    """Whether a folder has the four files, told from those of the other dataset by the first labels."""
    if not path.is_dir():
        return False
    try:
        return _starts_as(kind, [_labels(path, kind, part) for part in _PARTS])
    except DatasetError:
        return False


def _starts_as(kind: IdxKind, labels: list[np.ndarray]) -> bool:
    return all(tuple(y[:10].tolist()) == first for y, first in zip(labels, kind.first, strict=True))


def _images(place: Path, kind: IdxKind, part: str) -> np.ndarray:
    file = _find(place, kind, f"{part}-images", "idx3")
    images = _parse(file, axes=3)
    if images.shape[1:] != (_SIDE, _SIDE) or not len(images):
        raise DatasetError(
            f"{file}: holds images of shape {images.shape}, not (n, {_SIDE}, {_SIDE}); it is not {kind.title}, "
            "get it again"
        )
    return images


def _labels(place: Path, kind: IdxKind, part: str) -> np.ndarray:
    file = _find(place, kind, f"{part}-labels", "idx1")
    labels = _parse(file, axes=1)
    check_labels(labels, len(kind.classes), str(file))
    return labels


def _find(place: Path, kind: IdxKind, stem: str, idx: str) -> Path:
    def candidates() -> Iterator[Path]:
        for folder in kind.folders:
            for joint in ("-", "."):  # some unpackers write train-images.idx3-ubyte
                for suffix in ("", ".gz"):
                    yield place / folder / f"{stem}{joint}{idx}-ubyte{suffix}"

    found = next((file for file in candidates() if file.exists()), None)
    if found is None:
        raise DatasetError(f"{place}: {stem}-{idx}-ubyte (or .gz) missing; set data.path to {kind.what}")
    return found


def _parse(file: Path, axes: int) -> np.ndarray:
    content = gunzip(read_bytes(file), str(file))
    start = 4 * (1 + axes)
    magic = bytes((0, 0, _UINT8, axes))
    if content[:4] != magic or len(content) < start:
        raise DatasetError(
            f"{file}: starts with {content[:4].hex(' ') or 'nothing'}, not with {magic.hex(' ')} as an IDX "
            f"file of bytes with {axes} axes does; it is cut short or of another format, get it again"
        )
    shape = np.frombuffer(content[4:start], ">u4").tolist()
    expected = int(np.prod([int(length) for length in shape], dtype=object))
    if len(content) - start != expected:
        raise DatasetError(
            f"{file}: {len(content) - start:,} bytes of values, but its header promises {expected:,} "
            f"(shape {tuple(shape)}); it is cut short or damaged, get it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
