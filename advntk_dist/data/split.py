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
    test from the rows after; with a publisher's validation set, validation comes from the rows between
    ``dataset.val_start`` and ``dataset.test_start``, and training from those before. Without either, all three come
    from all rows. The test rows and then the validation rows are drawn first, so with the same seed and ``n_val``
    (and ``n_test``, where there is no publisher's test set) a smaller ``n_train`` gives a prefix of a larger one: a
    Gram matrix can grow.

    Parameters
    ----------
    dataset
        Dataset to divide.
    n_train, n_val, n_test
        Numbers of rows of each part: at least 1, 0 and 0.
    seed
        Seed of the draw, at least 0; the same seed and numbers give the same rows.

    Raises
    ------
    ConfigError
        If a number or the seed is impossible, or the dataset has fewer rows than asked for.
    """
    lowest = (("n_train", n_train, 1), ("n_val", n_val, 0), ("n_test", n_test, 0), ("seed", seed, 0))
    for key, value, least in lowest:
        if value < least:
            raise ConfigError(f"data.{key} = {value}: must be at least {least}")
    n, start = len(dataset), dataset.test_start
    # Children of a seed do not depend on their number: splits of data without a validation set stay what they were.
    seeds = np.random.SeedSequence(seed).spawn(3)
    draw, draw_test, draw_val = (np.random.Generator(np.random.PCG64(s)) for s in seeds)
    if start is None:
        _check(dataset, "images", n, {"n_test": n_test, "n_val": n_val, "n_train": n_train})
        rows = draw.permutation(n)
        test, rows = rows[:n_test], rows[n_test:]
        return Split(_indices(rows[n_val : n_val + n_train]), _indices(rows[:n_val]), _indices(test))
    _check(dataset, "test images", n - start, {"n_test": n_test})
    test = start + draw_test.permutation(n - start)[:n_test]
    if dataset.val_start is None:
        _check(dataset, "training images", start, {"n_val": n_val, "n_train": n_train})
        rows = draw.permutation(start)
        return Split(_indices(rows[n_val : n_val + n_train]), _indices(rows[:n_val]), _indices(test))
    first = dataset.val_start
    _check(dataset, "validation images", start - first, {"n_val": n_val})
    _check(dataset, "training images", first, {"n_train": n_train})
    val = first + draw_val.permutation(start - first)[:n_val]
    return Split(_indices(draw.permutation(first)[:n_train]), _indices(val), _indices(test))


def _check(dataset: Dataset, kind: str, available: int, asked: dict[str, int]) -> None:
    """Raise ConfigError at the first number, in the order of drawing, for which too few rows are left."""
    left = available
    earlier: list[str] = []
    dropped = f" (without {dataset.dropped:,} equal ones, which were dropped)" if dataset.dropped else ""
    for key, number in asked.items():
        if number > left:
            beside = f", {left} of them left beside {' and '.join(earlier)}" if earlier else ""
            raise ConfigError(
                f"data.{key} = {number}: {dataset.name!r} has {available} {kind}{dropped}{beside}; ask for fewer"
            )
        left -= number
        earlier.append(f"data.{key} = {number}")


def _indices(rows: np.ndarray) -> np.ndarray:
    indices = np.array(rows, dtype=np.int64)
    indices.setflags(write=False)
    return indices
