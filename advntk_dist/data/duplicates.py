"""Images that a dataset holds more than once: equal to the last pixel, or almost equal as the network sees them.

Equal images in two parts of a split make the results of the later part look better than they are; equal training
images with different labels leave no predictor that fits both.

Almost equal are images whose tangent features almost have one direction. Their distance is
1 - Theta(x, x') / sqrt(Theta(x, x) Theta(x', x')). Copies that were compressed or changed by a few grey levels lie far
below what two pictures of a dataset are apart, so a limit needs no unit: a tenth of the median distance of two training
images. Copies that are brightened by more than that, turned or shifted are not found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from advntk_dist.data.dataset import PART_TITLES, Dataset
from advntk_dist.errors import DatasetError
from advntk_dist.text import printable

SHOWN = 5
"""Pairs that are named."""
EQUAL = 1e-5
"""Distance up to which rounding tells no two images apart; equal pixels are found by their hash."""
PART = 0.1
"""Part of the median distance of two training images below which two count as almost equal."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ImagePlace:
    """The place of one image.

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
        """The part and the position in it, for reading."""
        return f"{'image' if self.part == 'all' else self.part} {self.index}"


@dataclass(frozen=True)
class ImagePair:
    """Two images that are equal or almost equal: the one of the earlier part first.

    Attributes
    ----------
    first, second
        Their places.
    same_label
        Whether they are of the same class.
    distance
        1 - cosine of their tangent features; 0 where every pixel is equal.
    """

    first: ImagePlace
    second: ImagePlace
    same_label: bool
    distance: float = 0.0

    def __str__(self) -> str:
        """Both places for reading, with files or rows of the dataset, and with classes where they differ."""
        notes = []
        if self.first.file is not None:
            notes.append(f"{self.first.file} and {self.second.file}")
        elif self.first.part != "all":
            notes.append(f"rows {self.first.row} and {self.second.row}")
        if not self.same_label:
            notes.append(f"classes '{self.first.label}' and '{self.second.label}'")
        if self.distance:
            notes.append(f"distance {self.distance:.2g}")
        return f"{self.first} {'~' if self.distance else '='} {self.second}" + (
            f" ({', '.join(notes)})" if notes else ""
        )


@dataclass(frozen=True)
class _Found:
    """What was found among the images of some parts.

    Attributes
    ----------
    images
        Numbers of images by part, in the order of the parts.
    pairs
        The first few pairs, in the order in which they mislead.
    """

    images: dict[str, int]
    pairs: tuple[ImagePair, ...]

    def _counted(self, part: str, count: int) -> str:
        """A number of the images of a part, in words."""
        return f"{count:,} of {self.images[part]:,} {_images(part)}"

    def _leak(self, counts: Mapping[str, int], what: str) -> str:
        """A sentence on the counted test and validation images; empty where there are none."""
        leaks = [self._counted(part, counts[part]) for part in ("test", "val") if counts.get(part)]
        return f"But {' and '.join(leaks)} {what}." if leaks else ""

    def as_dict(self) -> dict[str, Any]:
        """The same as values that JSON knows."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What :meth:`as_dict` gave."""
        from pydantic import TypeAdapter  # which the processes that compute distances need not load

        return TypeAdapter(cls).validate_python(values)


@dataclass(frozen=True)
class Duplicates(_Found):
    """Equal images within and across the parts of a split; "equal" means that every pixel is.

    Attributes
    ----------
    images
        Numbers of images by part, in the order of the parts.
    pairs
        The first few: those with different labels first, then those across parts.
    within
        By part, how many of its images equal an earlier image of the same part.
    across
        By two parts, as "train-test", how many images of the second one equal an image of the first one.
    contradicting
        Number of images that equal an image of another class.
    dropped
        Number of images that ``data.duplicates = "drop"`` has left out of the dataset.
    """

    within: dict[str, int]
    across: dict[str, int]
    contradicting: int
    dropped: int

    def __bool__(self) -> bool:
        """Whether there are any."""
        return any(self.within.values()) or any(self.across.values())

    def __str__(self) -> str:
        """One line for reading; empty where there are none."""
        if not self:
            return ""
        parts = ((key.split("-"), count) for key, count in self.across.items() if count)
        found = [f"{self._counted(later, count)} are also {_images(earlier)}" for (earlier, later), count in parts]
        found += [f"{self._counted(part, n)} equal an earlier one" for part, n in self.within.items() if n]
        if self.contradicting:
            found.append(f"{self.contradicting:,} images equal one of another class")
        more = "for example" if len(self.pairs) == SHOWN else "namely"
        return f"{'; '.join(found)}; {more} {', '.join(map(str, self.pairs))}"

    def lines(self) -> tuple[str, ...]:
        """What a run prints of them, each a line of its own; none where there is nothing to print."""
        dropped = f'equal images: {self.dropped:,} left out of the data, as data.duplicates = "drop"'
        warned = f'equal images: {self} (data.duplicates = "drop" keeps the first of each, "refuse" stops)'
        return (*((dropped,) if self.dropped else ()), *((warned,) if self else ()))

    @property
    def leak(self) -> str:
        """A sentence on validation and test images that are training images too; empty where there are none."""
        trained = {key.removeprefix("train-"): count for key, count in self.across.items()}
        return self._leak(trained, "are also training images")


@dataclass(frozen=True)
class NearEqual(_Found):
    """Images of a run that are almost equal to a training image, without being equal to it.

    Attributes
    ----------
    images
        Numbers of images by part, in the order of the parts.
    pairs
        The closest few, those of test images first, then validation, then training.
    limit
        Distance below which they count.
    close
        By part, how many lie below the limit from some other training image.
    """

    limit: float
    close: dict[str, int]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return any(self.close.values())

    def lines(self) -> tuple[str, ...]:
        """What a run prints of validation and test images among them; none where there is nothing to print.

        Training images that are almost equal to others are only counted, as no result is of them.
        """
        if not self.leak:
            return ()
        found = ", ".join(self._counted(part, count) for part, count in self.close.items() if count)
        more = "for example" if sum(self.close.values()) > len(self.pairs) else "namely"
        return (
            f"almost equal images: {found} lie within {self.limit:.2g} of a training image (1 - cosine of the tangent "
            f"kernel; a tenth of what training images are apart); {more} {', '.join(map(str, self.pairs))}",
        )

    @property
    def leak(self) -> str:
        """A sentence on validation and test images among them; empty where there are none."""
        return self._leak(self.close, "almost equal training images")


def find_duplicates(data: Dataset, parts: Mapping[str, Rows]) -> Duplicates:
    """Find equal images among the rows of some parts of a dataset, by a hash of their pixels.

    Parameters
    ----------
    data
        The images.
    parts
        Rows of the dataset (m,) int64 by part; parts are disjoint, and in the order of "train", "val", "test".
    """
    names, sizes = list(parts), {name: len(part) for name, part in parts.items()}
    rows = np.concatenate([np.asarray(part, np.int64) for part in parts.values()])
    starts = np.cumsum([0, *sizes.values()])
    of_part = np.repeat(np.arange(len(parts)), list(sizes.values()))
    first = _first_equal(data.x, rows)
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
        return _place(data, names[part], position - int(starts[part]), rows[position])

    copies = np.flatnonzero(first != np.arange(len(rows)))
    agree = labels[copies] == labels[first[copies]]
    inside = of_part[copies] == of_part[first[copies]]
    order = np.lexsort((copies, -of_part[copies], inside, agree))[:SHOWN]
    pairs = tuple(
        ImagePair(place(int(first[k])), place(int(k)), bool(labels[k] == labels[first[k]])) for k in copies[order]
    )
    return Duplicates(sizes, pairs, within, across, contradicting, data.dropped)


def find_near_equal(
    data: Dataset, parts: Mapping[str, Rows], nearest: Mapping[str, NDArray[np.float64]], typical: float
) -> NearEqual:
    """Name the images that are almost equal to a training image.

    Parameters
    ----------
    data
        The images.
    parts
        Rows of the dataset (m,) int64 by part: "train", "val" and "test".
    nearest
        By part, for each image (m, 2) float64 the distance to the nearest training image that it does not equal, and
        the index of that.
    typical
        Median distance of two training images.
    """
    limit = PART * typical
    close, pairs = dict[str, int](), list[ImagePair]()
    for part in ("test", "val", "train"):
        distance, index = nearest[part][:, 0], nearest[part][:, 1].astype(np.int64)
        below = np.flatnonzero(distance < limit)
        close[part] = len(below)
        if part == "train":  # each pair of training images once, unless the second has a nearer one
            below = below[(index[below] < below) | (index[index[below]] != below)]
        for i in below[np.argsort(distance[below], kind="stable")][: SHOWN - len(pairs)]:
            first, second = (_place(data, p, k, parts[p][k]) for p, k in (("train", int(index[i])), (part, int(i))))
            same = bool(data.y[first.row] == data.y[second.row])
            pairs.append(ImagePair(first, second, same, float(distance[i])))
    sizes = {part: len(nearest[part]) for part in ("train", "val", "test")}
    return NearEqual(sizes, tuple(pairs), limit, {part: close[part] for part in sizes})


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
    if (part := data.part_without(kept)) is not None:
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


def _place(data: Dataset, part: str, index: int, row: int | np.int64) -> ImagePlace:
    file = None if data.files is None else printable(data.files[row])
    return ImagePlace(part, index, int(row), data.classes[data.y[row]], file)


def _first_equal(x: NDArray[np.uint8], rows: Rows) -> Rows:
    """For each of ``rows``, the position in ``rows`` of the first image with the same pixels."""
    flat = x.reshape(len(x), -1)
    seen: dict[bytes, int] = {}
    first = (seen.setdefault(hashlib.blake2b(flat[row], digest_size=16).digest(), k) for k, row in enumerate(rows))
    return np.fromiter(first, np.int64, len(rows))
