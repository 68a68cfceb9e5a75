"""Images that are almost the same, as the network sees them: by the cosine of their tangent features.

The distance of two images is 1 - Theta(x, x') / sqrt(Theta(x, x) Theta(x', x')). Copies that were compressed or changed
by a few grey levels lie far below what two pictures of a dataset are apart, so a limit needs no unit: a tenth of the
median distance of two training images. Copies that are brightened by more than that, turned or shifted are not found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.data.dataset import PART_TITLES, Dataset
from advntk_dist.data.duplicates import SHOWN, ImagePlace, place_of

EQUAL = 1e-5
"""Distance up to which rounding tells no two images apart; equal pixels are found by their hash."""
PART = 0.1
"""Part of the median distance of two training images below which two count as almost the same."""


@dataclass(frozen=True)
class NearPair:
    """Two images that are almost the same, the training image first, with their distance."""

    first: ImagePlace
    second: ImagePlace
    same_label: bool
    distance: float

    def __str__(self) -> str:
        """For reading, with files or rows of the dataset, and with classes where they differ."""
        ends = (self.first, self.second)
        named = " and ".join(f"row {end.row}" if end.file is None else end.file for end in ends)
        classes = "" if self.same_label else f", classes '{self.first.label}' and '{self.second.label}'"
        return f"{self.first} ~ {self.second} ({named}{classes}, distance {self.distance:.2g})"


@dataclass(frozen=True)
class NearEqual:
    """Images of a run that are almost the same as a training image, without being equal to it.

    Attributes
    ----------
    limit
        Distance below which they count.
    images
        Numbers of images by part.
    close
        By part, how many lie below the limit from some other training image.
    pairs
        The closest few, those of test images first, then validation, then training.
    """

    limit: float
    images: dict[str, int]
    close: dict[str, int]
    pairs: tuple[NearPair, ...]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return any(self.close.values())

    def lines(self) -> tuple[str, ...]:
        """What a run says of validation and test images among them; none where there is nothing to say.

        Training images that are almost the same as others are only counted: no accuracy is misled by them.
        """
        if not self.leak:
            return ()
        found = [
            f"{count:,} of {self.images[part]:,} {PART_TITLES[part]} images"
            for part, count in self.close.items()
            if count
        ]
        more = "for example" if sum(self.close.values()) > len(self.pairs) else "namely"
        return (
            f"almost equal images: {', '.join(found)} lie within {self.limit:.2g} of a training image (1 - cosine of "
            f"the tangent kernel; a tenth of what training images are apart); {more} "
            f"{', '.join(map(str, self.pairs))}",
        )

    @property
    def leak(self) -> str:
        """A sentence on validation and test images among them; empty where there are none."""
        leaks = [
            f"{self.close[part]:,} of {self.images[part]:,} {PART_TITLES[part]} images"
            for part in ("test", "val")
            if self.close[part]
        ]
        return f"But {' and '.join(leaks)} almost equal training images." if leaks else ""

    def as_dict(self) -> dict[str, Any]:
        """The same as values that JSON knows."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NearEqual:
        """What :meth:`as_dict` gave."""
        pairs = tuple(
            NearPair(ImagePlace(**pair["first"]), ImagePlace(**pair["second"]), pair["same_label"], pair["distance"])
            for pair in values["pairs"]
        )
        return cls(**{**values, "pairs": pairs})


def find_near_equal(
    data: Dataset,
    parts: Mapping[str, NDArray[np.int64]],
    nearest: Mapping[str, NDArray[np.float64]],
    typical: float,
) -> NearEqual:
    """Name the images that are almost the same as a training image.

    Parameters
    ----------
    data
        The images.
    parts
        Rows of the dataset (m,) by part: "train", "val" and "test".
    nearest
        By part, for each image (m, 2) the distance to the nearest training image that it does not equal, and the index
        of that.
    typical
        Median distance of two training images.
    """
    limit = PART * typical
    close, pairs = dict[str, int](), list[NearPair]()
    for part in ("test", "val", "train"):
        distance, index = nearest[part][:, 0], nearest[part][:, 1].astype(np.int64)
        below = np.flatnonzero(distance < limit)
        close[part] = len(below)
        if part == "train":  # each pair of training images once, unless the second has a nearer one
            below = below[(index[below] < below) | (index[index[below]] != below)]
        for i in below[np.argsort(distance[below], kind="stable")][: SHOWN - len(pairs)]:
            first, second = (place_of(data, p, k, parts[p][k]) for p, k in (("train", int(index[i])), (part, int(i))))
            same = bool(data.y[first.row] == data.y[second.row])
            pairs.append(NearPair(first, second, same, float(distance[i])))
    sizes = {part: len(nearest[part]) for part in ("train", "val", "test")}
    return NearEqual(limit, sizes, {part: close[part] for part in sizes}, tuple(pairs))
