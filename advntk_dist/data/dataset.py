"""A labelled set of images: what every reader returns and every later stage starts from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from advntk_dist.errors import DatasetError
from advntk_dist.grid import spans
from advntk_dist.text import printable

_HASH_BLOCK = 16 * 2**20
"""Bytes hashed at a time, so that an array with strides is never copied whole."""
_SUMMED = 4096
"""Images summed at a time."""
_AGAIN = "the file is damaged or of another format, get it again"
PART_TITLES = {"train": "training", "val": "validation", "test": "test"}
"""The parts of a split in words."""
_CHANNELS = frozenset((1, 3, 4))
"""Numbers of channels of grey images, of colours, and of colours with transparency."""


def check_labels(y: np.ndarray, n_classes: int, where: str, remedy: str = _AGAIN) -> None:
    """Raise DatasetError, with a remedy, unless every label of the integer array ``y`` is one of 0..n_classes-1."""
    wrong = np.flatnonzero((y < 0) | (y >= n_classes))
    if wrong.size:
        raise DatasetError(
            f"{where}: image {wrong[0]} has label {y[wrong[0]]}, but there are {n_classes} classes "
            f"(labels 0..{n_classes - 1}); {remedy}"
        )


def describe(value: object) -> str:
    """The type of a value that is not the right one, and of an array the dtype and the shape, for messages."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"a {type(value).__name__}"


def channels_first(shape: tuple[int, ...], name: str) -> str | None:
    """What is wrong with images of a shape (n, C, H, W), and the line that mends it; None for (n, H, W, C).

    One, three or four rows of more than four columns in more than four channels are taken for channels.
    """
    if len(shape) != 4 or shape[1] not in _CHANNELS or min(shape[2:]) <= max(_CHANNELS):
        return None
    _, rows, columns, channels = shape
    return (
        f"{name} has shape {shape}, which as (n, H, W, C) is {rows} x {columns} images of {channels} channels; if the "
        f"channels come first, give {name}.transpose(0, 2, 3, 1), and if there really are {rows} rows of pixels, "
        f"{name}.transpose(0, 2, 1, 3)"
    )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels, in a fixed order.

    Parameters
    ----------
    name
        Name of the data in reports.
    x
        Images (n, H, W, C) uint8. Kept C-contiguous and read-only; a writeable or strided array is copied.
    y
        Labels (n,) int64 in 0..len(classes)-1. Kept the same way.
    classes
        Class names; the label is the position.
    test_start
        Index of the first row of the publisher's own test set, None where the publisher has no split.
    val_start
        Index of the first row of the publisher's own validation set, which ends where the test set begins; None where
        there is none. The rows before it are the training set.
    files
        Names of the images within the folder or archive that they are from, in the order of the rows; None where they
        are no files.
    dropped
        Number of equal images that were left out of what the reader gave.

    Raises
    ------
    DatasetError
        If a shape, dtype, label, class name, ``test_start`` or ``val_start`` is impossible, or the channels come first.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    test_start: int | None = None
    val_start: int | None = None
    files: tuple[str, ...] | None = None
    dropped: int = 0

    def __post_init__(self) -> None:
        """Check every field and freeze the arrays."""
        where = f"dataset {self.name!r}"
        for field, value, dtype, ndim in (("x", self.x, np.uint8, 4), ("y", self.y, np.int64, 1)):
            if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != ndim:
                raise DatasetError(
                    f"{where}: {field} is {describe(value)}; it must be a {ndim}-dimensional "
                    f"{np.dtype(dtype)} array, x as (n, H, W, C) and y as (n,)"
                )
        n = len(self.x)
        if len(self.y) != n:
            raise DatasetError(f"{where}: {n} images but {len(self.y)} labels; give one label an image")
        if self.x.size == 0:
            raise DatasetError(f"{where}: no images (x has shape {self.x.shape}); give at least one")
        if not self.classes or not all(isinstance(c, str) for c in self.classes):
            raise DatasetError(f"{where}: classes must be at least one string, got {self.classes!r}")
        check_labels(self.y, len(self.classes), where)
        if self.test_start is not None and not 1 <= self.test_start < n:
            raise DatasetError(
                f"{where}: test_start is {self.test_start}, which leaves no training or no test rows "
                f"out of {n}; use None for data without a test set of its own"
            )
        if self.val_start is not None and not 1 <= self.val_start < (self.test_start or 0):
            raise DatasetError(
                f"{where}: val_start is {self.val_start}, which leaves no training or no validation rows before "
                f"test_start = {self.test_start}; use None for data without a validation set of its own"
            )
        if self.files is not None and len(self.files) != n:
            raise DatasetError(f"{where}: {n} images but {len(self.files)} names of files; give one name an image")
        if (wrong := channels_first(self.x.shape, "x")) is not None:
            raise DatasetError(f"{where}: {wrong}")
        # Names come from files of unknown origin, and are printed in many places.
        object.__setattr__(self, "name", printable(self.name))
        object.__setattr__(self, "x", _frozen(self.x))
        object.__setattr__(self, "y", _frozen(self.y))
        object.__setattr__(self, "classes", tuple(printable(c) for c in self.classes))

    @classmethod
    def joined(
        cls, name: str, pieces: Sequence[tuple[str, np.ndarray, np.ndarray]], classes: tuple[str, ...]
    ) -> Dataset:
        """The dataset of some pieces in the order of their rows.

        Parameters
        ----------
        name
            Name of the dataset.
        pieces
            Part, images (m, H, W, C) uint8 and labels (m,) of integers of each piece: first those of "train", then
            those of "val" and of "test", where the publisher divides the data. Images of a single piece become
            read-only.
        classes
            Class names; the label is the position.

        Raises
        ------
        DatasetError
            As for the dataset itself.
        """
        starts, row = dict[str, int](), 0
        for part, _, labels in pieces:
            starts.setdefault(part, row)
            row += len(labels)
        x = pieces[0][1] if len(pieces) == 1 else np.concatenate([images for _, images, _ in pieces])
        x.setflags(write=False)  # else it would be copied
        y = np.concatenate([labels for _, _, labels in pieces]).astype(np.int64)
        return cls(name, x, y, classes, starts.get("test"), starts.get("val"))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.x)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        height, width, channels = self.x.shape[1:]
        return height, width, channels

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """Rows (m,) int64 of the publisher's parts, "train", "val" and "test"; of "all" where there are none."""
        if self.test_start is None:
            return {"all": np.arange(len(self))}
        starts = {"train": 0, "val": self.val_start, "test": self.test_start}
        given = {part: start for part, start in starts.items() if start is not None}
        return {
            part: np.arange(*rows) for part, rows in zip(given, pairwise((*given.values(), len(self))), strict=True)
        }

    def part_without(self, rows: np.ndarray) -> str | None:
        """The first of the publisher's parts that has none of some rows, given as indices (m,); None where each has."""
        return next((part for part, own in self.parts.items() if not np.isin(rows, own).any()), None)

    def take(self, rows: np.ndarray) -> Dataset:
        """The dataset of some rows alone, given as ascending indices (m,); each part keeps at least one.

        Raises
        ------
        DatasetError
            If a part keeps none.
        """
        x, y = self.x[rows], self.y[rows]
        for array in (x, y):
            array.setflags(write=False)

        def moved(start: int | None) -> int | None:
            return None if start is None else int(np.searchsorted(rows, start))

        return replace(
            self,
            x=x,
            y=y,
            test_start=moved(self.test_start),
            val_start=moved(self.val_start),
            files=None if self.files is None else tuple(self.files[row] for row in rows),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hex sha256 over shape, dtype and bytes of x and y in order, class names, and ``val_start`` where given."""
        own_validation = [] if self.val_start is None else [self.val_start]  # other data keep the hash that they had
        head = json.dumps(["advntk-dataset-1", list(self.classes), *own_validation], ensure_ascii=True)
        digest = hashlib.sha256(head.encode())
        _hash_array(digest.update, self.x)
        _hash_array(digest.update, self.y)
        return digest.hexdigest()


def fingerprint_images(x: np.ndarray) -> str:
    """Hex sha256 over dtype, shape and bytes of a uint8 or float array, rows in order.

    Equal contents give equal fingerprints whatever the memory layout; at most 16 MiB (or one row, where a
    row is larger) of a strided array is copied at a time, nothing of a contiguous one.

    Raises
    ------
    DatasetError
        If x is neither uint8 nor floating point, or has no axis of rows.
    """
    array = np.asarray(x)
    if array.ndim == 0 or not (array.dtype == np.uint8 or np.issubdtype(array.dtype, np.floating)):
        raise DatasetError(f"images are {describe(array)}; they must be a uint8 or floating-point array with rows")
    digest = hashlib.sha256(b"advntk-images-1")
    _hash_array(digest.update, array)
    return digest.hexdigest()


def summarise(data: Dataset) -> dict[str, Any]:
    """Count a dataset, as values that JSON knows.

    Returns
    -------
    dict
        ``name``, ``n``, ``shape`` (H, W, C), ``parts`` (numbers of rows: "train", "val" and "test" as the publisher
        divides them, or "all"), ``classes`` (a list of ``name`` and one count a part), ``fingerprint`` (sha256), and
        ``mean`` and ``std`` of each channel in units of the pixels, 0..255.
    """
    parts = {part: data.y[rows] for part, rows in data.parts.items()}
    counts = {part: np.bincount(y, minlength=data.n_classes) for part, y in parts.items()}
    mean, std = _moments(data.x)
    return {
        "name": data.name,
        "n": len(data),
        "shape": list(data.image_shape),
        "parts": {part: len(y) for part, y in parts.items()},
        "classes": [
            {"name": name, **{part: int(count[label]) for part, count in counts.items()}}
            for label, name in enumerate(data.classes)
        ],
        "fingerprint": data.fingerprint,
        "mean": mean.tolist(),
        "std": std.tolist(),
    }


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (C,) float64 of each channel, exact in integers up to the division."""
    total, squares = np.zeros((2, x.shape[3]), np.int64)
    for rows in spans(len(x), _SUMMED):
        block = x[rows].astype(np.int64)
        total += block.sum((0, 1, 2))
        squares += (block * block).sum((0, 1, 2))
    count = x.size // x.shape[3]
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


def one_hot(y: np.ndarray, n_classes: int) -> np.ndarray:
    """Turn (n,) integer labels into (n, n_classes) float64 rows of zeros with a single one.

    Raises
    ------
    DatasetError
        If y is not a 1-dimensional integer array or a label is outside 0..n_classes-1.
    """
    labels = np.asarray(y)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DatasetError(f"labels are {describe(labels)}; they must be a 1-dimensional integer array")
    check_labels(labels, n_classes, "labels")
    encoded = np.zeros((len(labels), n_classes))
    encoded[np.arange(len(labels)), labels] = 1.0
    return encoded


def to_unit_range(x: np.ndarray) -> np.ndarray:
    """Bring (n, H, W, C) images to floats in [-0.5, 0.5], the range every kernel and attack works in.

    uint8 becomes float32 ``x / 255 - 0.5``; float32 and float64 already in the range come back as they are.

    Raises
    ------
    DatasetError
        If x is not 4-dimensional, of another dtype, out of range, or not finite.
    """
    images = np.asarray(x)
    if images.ndim != 4:
        raise DatasetError(f"images are {describe(images)}; they must have 4 axes (n, H, W, C)")
    if images.dtype == np.uint8:
        scaled = images.astype(np.float32)
        scaled /= np.float32(255)
        scaled -= np.float32(0.5)
        return scaled
    if images.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise DatasetError(f"images are {describe(images)}; give uint8, or float32 or float64 in [-0.5, 0.5]")
    if images.size:
        low, high = float(images.min()), float(images.max())
        if not np.isfinite([low, high]).all():
            raise DatasetError("images hold values that are not finite; give floats in [-0.5, 0.5] or uint8")
        if low < -0.5 or high > 0.5:
            raise DatasetError(
                f"images have values from {low:.9g} to {high:.9g}; floats must lie in [-0.5, 0.5] "
                "(subtract 0.5 from images in [0, 1], or give uint8)"
            )
    return images


def _hash_array(update: Callable[[bytes | memoryview], None], array: np.ndarray) -> None:
    update(json.dumps([array.dtype.str, array.shape]).encode())
    if array.size:
        for rows in spans(len(array), max(1, _HASH_BLOCK // array[:1].nbytes)):
            update(np.ascontiguousarray(array[rows]).reshape(-1).view(np.uint8).data)


def _frozen(array: np.ndarray) -> np.ndarray:
    if array.flags.c_contiguous and not array.flags.writeable:
        return array
    copy = np.array(array, order="C", copy=True)
    copy.setflags(write=False)
    return copy
