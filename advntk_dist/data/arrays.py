"""Anybody's own images as arrays x and y, and optionally classes, x_test and y_test: checked and put together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from advntk_dist.data.dataset import Dataset, check_labels, describe
from advntk_dist.errors import DatasetError

NAMES = ("x", "y", "classes", "x_test", "y_test")
_MOST_UNNAMED = 65_536
"""Above this a label is taken for damage, not for a class, unless the file names its classes."""


def assemble(arrays: Mapping[str, np.ndarray], place: Path, what: str) -> Dataset:
    """Make a dataset of named arrays; ``x_test`` and ``y_test``, where present, become the publisher's test set.

    Parameters
    ----------
    arrays
        x (n, H, W, C) or (n, H, W) uint8, y (n,) integers, and optionally classes (k,) strings, x_test, y_test.
        Without ``classes`` they are "0", "1", ... up to the largest label.
    place
        Where they are from; its last part names the dataset.
    what
        What should be there, for messages.

    Raises
    ------
    DatasetError
        If x or y is missing, or an array has another type or shape.
    """
    missing = [name for name in ("x", "y") if name not in arrays]
    if missing:
        raise DatasetError(f"{place}: no array {' and no array '.join(missing)}; it must be {what}")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise DatasetError(f"{place}: x_test and y_test belong together, but only one is there")
    x, y = _pair(arrays["x"], arrays["y"], place, "")
    test_start = None
    if "x_test" in arrays:
        x_test, y_test = _pair(arrays["x_test"], arrays["y_test"], place, "_test")
        if x_test.shape[1:] != x.shape[1:]:
            raise DatasetError(
                f"{place}: x has images of shape {x.shape[1:]} but x_test {x_test.shape[1:]}; make them alike"
            )
        test_start = len(x)
        x, y = np.concatenate([x, x_test]), np.concatenate([y, y_test])
    classes = _classes(arrays.get("classes"), y, place)
    check_labels(y, len(classes), str(place))
    x.setflags(write=False)
    return Dataset(place.name, x, y, classes, test_start)


def _pair(x: np.ndarray, y: np.ndarray, place: Path, suffix: str) -> tuple[np.ndarray, np.ndarray]:
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or x.size == 0:
        raise DatasetError(
            f"{place}: x{suffix} is {describe(x)}; it must be uint8 of shape (n, H, W, C) or (n, H, W), "
            "with at least one image"
        )
    if not np.issubdtype(y.dtype, np.integer) or y.ndim != 1:
        raise DatasetError(f"{place}: y{suffix} is {describe(y)}; it must be integers of shape (n,)")
    if len(x) != len(y):
        raise DatasetError(
            f"{place}: x{suffix} has {len(x)} images but y{suffix} {len(y)} labels; give one label an image"
        )
    return x if x.ndim == 4 else x[..., None], y.astype(np.int64)


def _classes(names: np.ndarray | None, y: np.ndarray, place: Path) -> tuple[str, ...]:
    if names is not None:
        if names.dtype.kind != "U" or names.ndim != 1 or names.size == 0:
            raise DatasetError(
                f"{place}: classes is {describe(names)}; it must be strings of shape (number of classes,)"
            )
        return tuple(str(name) for name in names)
    check_labels(y, _MOST_UNNAMED, str(place))
    return tuple(str(label) for label in range(int(y.max()) + 1))
