"""The first steps that a run may apply to its images: keep some classes, bring them to another size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from advntk_dist.data.dataset import PART_TITLES, Dataset
from advntk_dist.errors import DatasetError
from advntk_dist.text import did_you_mean

_FILTER = Image.Resampling.BILINEAR
"""Pillow widens it by the factor of the reduction, which is what keeps fine patterns from aliasing. A weighted
mean with weights that are not negative: no value leaves the range of its source."""


def resize_image(image: Image.Image, edge: int) -> Image.Image:
    """Scale the middle square of an image to ``edge`` x ``edge`` pixels, antialiased."""
    side = min(image.size)
    left, upper = (image.width - side) // 2, (image.height - side) // 2
    # Cut first: with ``box``, Pillow's filter would reach past the edge of the square.
    square = image.crop((left, upper, left + side, upper + side))
    return square.resize((edge, edge), _FILTER)


def resize(data: Dataset, edge: int) -> Dataset:
    """Bring every image to ``edge`` x ``edge``: its middle square, scaled, antialiased; channels stay apart.

    Parameters
    ----------
    data
        Dataset with images (n, H, W, C) uint8 of any size and any number of channels.
    edge
        Edge of the new images in pixels, at least 1.

    Returns
    -------
    Dataset
        The same rows in the same order; ``data`` itself where the images have that size already.
    """
    height, width, channels = data.image_shape
    if (height, width) == (edge, edge):
        return data
    x = np.empty((len(data), edge, edge, channels), np.uint8)
    for out, image in zip(x, data.x, strict=True):
        if channels == 3:
            out[:] = np.asarray(resize_image(Image.fromarray(image), edge))
            continue
        for channel in range(channels):
            out[:, :, channel] = np.asarray(resize_image(Image.fromarray(image[:, :, channel]), edge))
    x.setflags(write=False)
    return replace(data, x=x)


def keep_classes(data: Dataset, wanted: Sequence[str | int]) -> Dataset:
    """Keep the rows of some classes; labels are numbered anew, in the order of ``data.classes``.

    Parameters
    ----------
    data
        Any dataset.
    wanted
        At least two of its classes, each by name or by number. A text that is a class name is always the name, and
        else, where it is a number, the number.

    Raises
    ------
    DatasetError
        If a class is unknown or named twice, one has no image, or a part of the publisher's keeps none.
    """
    numbers = [_number(data, item) for item in wanted]
    if len(numbers) < 2 or len(set(numbers)) != len(numbers):
        raise DatasetError(
            f"data.class_subset = {list(wanted)}: must name at least two classes, none of them twice; "
            f"{data.name!r} has {_list(data.classes)}"
        )
    kept = sorted(numbers)
    label = np.full(data.n_classes, -1, np.int64)
    label[kept] = np.arange(len(kept))
    rows = np.flatnonzero(label[data.y] >= 0)
    y = label[data.y[rows]]
    absent = set(range(len(kept))) - set(np.unique(y).tolist())
    if absent:
        raise DatasetError(
            f"data.class_subset: {data.name!r} has no image of class {data.classes[kept[min(absent)]]!r}; leave it out"
        )
    if (part := data.part_without(rows)) is not None:
        raise DatasetError(
            f"data.class_subset = {list(wanted)}: {data.name!r} has no {PART_TITLES[part]} image of these classes; "
            "name others"
        )
    y.setflags(write=False)
    return replace(data.take(rows), y=y, classes=tuple(data.classes[k] for k in kept))


def _number(data: Dataset, item: str | int) -> int:
    if isinstance(item, str) and item in data.classes:
        return data.classes.index(item)
    if isinstance(item, str) and item.isdecimal():
        item = int(item)
    if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < data.n_classes:
        return item
    meant = did_you_mean(str(item), data.classes)
    raise DatasetError(
        f"data.class_subset: {data.name!r} has no class {item!r}{meant}; it has {_list(data.classes)} "
        f"(numbers 0..{data.n_classes - 1})"
    )


def _list(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:12])
    return shown if len(classes) <= 12 else f"{shown}, ... ({len(classes)} in all)"
