"""Seeded division of a dataset into training, validation and test rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from advntk_dist.data.dataset import Dataset
from advntk_dist.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a dataset: three disjoint int64 index arrays, each in the order it was drawn, read-only."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def split(dataset: Dataset, *, n_train: int, n_val: int, n_test: int, seed: int) -> Split:
    """Draw training, validation and test rows at random without replacement (as Fu & Wang, ICLR 2024).

    With a publisher's test set, training and validation come from the rows before ``dataset.test_start`` and
    test from the rows after; without one, all three come from all rows. The test rows and then the validation
    rows are drawn first, so with the same seed and ``n_val`` (and ``n_test``, where there is no publisher's
    test set) a smaller ``n_train`` gives a prefix of a larger one: a Gram matrix can grow.

    Parameters
    ----------
    dataset
        The images to divide.
    n_train, n_val, n_test
        Numbers of rows: at least 1, 0 and 0.
    seed
        Non-negative; the same seed and numbers give the same rows.

    Raises
    ------
    ConfigError
        If a number or the seed is impossible, or the dataset has fewer rows than asked for.
    """
    lowest = (("n_train", n_train, 1), ("n_val", n_val, 0), ("n_test", n_test, 0), ("seed", seed, 0))
    for key, value, least in lowest:
        if value < least:
            raise ConfigError(f"data.{key} = {value}: must be at least {least}")
    n = len(dataset)
    draw, draw_test = (np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(seed).spawn(2))
    if dataset.test_start is None:
        _check(dataset, "images", n, {"n_test": n_test, "n_val": n_val, "n_train": n_train})
        rows = draw.permutation(n)
        test, rows = rows[:n_test], rows[n_test:]
    else:
        start = dataset.test_start
        _check(dataset, "test images", n - start, {"n_test": n_test})
        _check(dataset, "training images", start, {"n_val": n_val, "n_train": n_train})
        rows = draw.permutation(start)
        test = start + draw_test.permutation(n - start)[:n_test]
    return Split(_indices(rows[n_val : n_val + n_train]), _indices(rows[:n_val]), _indices(test))


def _check(dataset: Dataset, kind: str, available: int, asked: dict[str, int]) -> None:
    """Raise ConfigError at the first number, in the order of drawing, for which too few rows are left."""
    left = available
    earlier: list[str] = []
    for key, number in asked.items():
        if number > left:
            beside = f", {left} of them left beside {' and '.join(earlier)}" if earlier else ""
            raise ConfigError(f"data.{key} = {number}: {dataset.name!r} has {available} {kind}{beside}; ask for fewer")
        left -= number
        earlier.append(f"data.{key} = {number}")


def _indices(rows: np.ndarray) -> np.ndarray:
    indices = np.array(rows, dtype=np.int64)
    indices.setflags(write=False)
    return indices
