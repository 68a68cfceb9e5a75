"""Images that are there more than once: which they are, whether their labels agree, and how to keep one of each.

Equal images in two parts of a split make the results of the later part look better than they are; equal training
images with different labels leave no predictor that fits both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.data.dataset import PART_TITLES, Dataset
from advntk_dist.errors import DatasetError
from advntk_dist.text import printable

SHOWN = 5
"""Pairs that are named."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ImagePlace:
    """Where one image is.

    Attributes
    ----------
    part
        "train", "val" or "test", or "all" where there are no parts.
    index
        Position in the part, which of training images is the row of the Gram matrix.
    row
        Position in the dataset.
    label
        Name of its class, printable.
    file
        Its name within the folder or archive, printable; None where the images are no files.
    """

    part: str
    index: int
    row: int
    label: str
    file: str | None

    def __str__(self) -> str:
        """For reading: the part and the position in it."""
        return f"{'image' if self.part == 'all' else self.part} {self.index}"


@dataclass(frozen=True)
class EqualPair:
    """Two equal images, the earlier one first, and whether they are of the same class."""

    first: ImagePlace
    second: ImagePlace
    same_label: bool

    def __str__(self) -> str:
        """For reading, with files or rows of the dataset, and with classes where they differ."""
        if self.first.file is not None:
            notes = [f"{self.first.file} and {self.second.file}"]
        elif self.first.part == "all":
            notes = []
        else:
            notes = [f"rows {self.first.row} and {self.second.row}"]
        if not self.same_label:
            notes.append(f"classes '{self.first.label}' and '{self.second.label}'")
        return f"{self.first} = {self.second}" + (f" ({', '.join(notes)})" if notes else "")


@dataclass(frozen=True)
class Duplicates:
    """Equal images within and across the parts of a split; "equal" means that every pixel is.

    Attributes
    ----------
    images
        Numbers of images by part, in the order of the parts.
    within
        By part, how many of its images equal an earlier image of the same part.
    across
        By two parts, as "train-test", how many images of the second one equal an image of the first one.
    contradicting
        How many images equal an image of another class.
    dropped
        How many images ``data.duplicates = "drop"`` has left out of the dataset.
    pairs
        The first few: those with different labels first, then those across parts.
    """

    images: dict[str, int]
    within: dict[str, int]
    across: dict[str, int]
    contradicting: int
    dropped: int
    pairs: tuple[EqualPair, ...]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return any(self.within.values()) or any(self.across.values())

    def __str__(self) -> str:
        """One line for reading; empty where there are none."""
        if not self:
            return ""
        found = [
            f"{count:,} of {self.images[later]:,} {_images(later)} are also {_images(earlier)}"
            for key, count in self.across.items()
            for earlier, later in [key.split("-")]
            if count
        ]
        found += [
            f"{count:,} of {self.images[part]:,} {_images(part)} equal an earlier one"
            for part, count in self.within.items()
            if count
        ]
        if self.contradicting:
            found.append(f"{self.contradicting:,} images equal one of another class")
        more = "for example" if len(self.pairs) == SHOWN else "namely"
        return f"{'; '.join(found)}; {more} {', '.join(map(str, self.pairs))}"

    def lines(self) -> tuple[str, ...]:
        """What a run says of them, each a line of its own; none where there is nothing to say."""
        dropped = f'equal images: {self.dropped:,} left out of the data, as data.duplicates = "drop"'
        warned = f'equal images: {self} (data.duplicates = "drop" keeps the first of each, "refuse" stops)'
        return (*((dropped,) if self.dropped else ()), *((warned,) if self else ()))

    @property
    def leak(self) -> str:
        """A sentence on validation and test images that are training images too; empty where there are none."""
        leaks = [
            f"{self.across[f'train-{part}']:,} of {self.images[part]:,} {_images(part)}"
            for part in ("test", "val")
            if self.across.get(f"train-{part}")
        ]
        return f"But {' and '.join(leaks)} are also training images." if leaks else ""

    def as_dict(self) -> dict[str, Any]:
        """The same as values that JSON knows."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Duplicates:
        """What :meth:`as_dict` gave."""
        pairs = tuple(
            EqualPair(ImagePlace(**pair["first"]), ImagePlace(**pair["second"]), pair["same_label"])
            for pair in values["pairs"]
        )
        return cls(**{**values, "pairs": pairs})


def find_duplicates(data: Dataset, parts: Mapping[str, Rows]) -> Duplicates:
    """Find equal images among the rows of some parts of a dataset, by a hash of their pixels.

    Parameters
    ----------
    data
        The images.
    parts
        Rows of the dataset (m,) int64 by part; parts are disjoint, and in the order of "train", "val", "test".
    """
    rows = np.concatenate([np.asarray(part, np.int64) for part in parts.values()])
    sizes = {name: len(part) for name, part in parts.items()}
    ends = np.cumsum(list(sizes.values()))
    of_part = np.repeat(np.arange(len(parts)), list(sizes.values()))
    first = _first_equal(data.x, rows)
    names = list(parts)
    groups = [first[of_part == k] for k in range(len(parts))]
    within = {name: len(group) - len(np.unique(group)) for name, group in zip(names, groups, strict=True)}
    across = {
        f"{names[a]}-{names[b]}": int(np.isin(groups[b], groups[a]).sum())
        for a, b in combinations(range(len(parts)), 2)
    }
    labels = data.y[rows]
    differing = first[labels != labels[first]]
    contradicting = int(np.isin(first, differing).sum())

    def place(position: int) -> ImagePlace:
        part = int(of_part[position])
        return place_of(data, names[part], position - int(ends[part] - sizes[names[part]]), rows[position])

    copies = np.flatnonzero(first != np.arange(len(rows)))
    agree = labels[copies] == labels[first[copies]]
    inside = of_part[copies] == of_part[first[copies]]
    order = np.lexsort((copies, -of_part[copies], inside, agree))[:SHOWN]
    pairs = tuple(
        EqualPair(place(int(first[k])), place(int(k)), bool(labels[k] == labels[first[k]])) for k in copies[order]
    )
    return Duplicates(sizes, within, across, contradicting, data.dropped, pairs)


def place_of(data: Dataset, part: str, index: int, row: int | np.int64) -> ImagePlace:
    """Where an image is: its position in its part, and in the dataset."""
    file = None if data.files is None else printable(data.files[row])
    return ImagePlace(part, index, int(row), data.classes[data.y[row]], file)


def drop_duplicates(data: Dataset) -> Dataset:
    """Leave out every image that equals an earlier one of the dataset.

    The first copy stays, with its label; as training images come first, then validation and test images, a training
    image that is in the publisher's test set too stays in the training set alone.

    Raises
    ------
    DatasetError
        If no validation or no test image is left.
    """
    everything = np.arange(len(data), dtype=np.int64)
    kept = np.flatnonzero(_first_equal(data.x, everything) == everything)
    if len(kept) == len(data):
        return data
    for part, rows in data.parts.items():
        if not np.isin(kept, rows).any():
            raise DatasetError(
                f'data.duplicates = "drop": no {PART_TITLES[part]} image of {data.name!r} is left, as all equal an '
                "earlier image; give other images to one of the parts"
            )
    return replace(data.take(kept), dropped=len(data) - len(kept))


def refuse_duplicates(found: Duplicates, name: str) -> None:
    """Raise DatasetError, which names them, if there are equal images."""
    if found:
        raise DatasetError(
            f'{name!r} holds equal images, and data.duplicates = "refuse": {found}; set data.duplicates to "drop", '
            "which keeps the first of equal images, or remove them from the data"
        )


def _images(part: str) -> str:
    """The images of a part, in words."""
    return f"{PART_TITLES[part]} images" if part in PART_TITLES else "images"


def _first_equal(x: NDArray[np.uint8], rows: Rows) -> Rows:
    """For each of ``rows``, the position in ``rows`` of the first image with the same pixels."""
    flat = x.reshape(len(x), -1)
    seen: dict[bytes, int] = {}
    first = (seen.setdefault(hashlib.blake2b(flat[row], digest_size=16).digest(), k) for k, row in enumerate(rows))
    return np.fromiter(first, np.int64, len(rows))
