"""The embedded default: scikit-learn's copy of the UCI handwritten digits, 1,797 real 8x8 images.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advntk_dist.data.dataset import Dataset
from advntk_dist.errors import DatasetError


def read_digits(path: Path | None) -> Dataset:
    """Return the digits as (1797, 8, 8, 1) uint8: grey levels 0..16 scaled by ``round(v * 255 / 16)``.

    Raises
    ------
    DatasetError
        If a path is given: these images come with scikit-learn.
    """
    if path is not None:
        raise DatasetError(f"dataset 'digits' comes with scikit-learn and reads no file: leave out data.path ({path})")
    images, labels = _table()
    x = np.rint(images.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
    return Dataset("digits", x, labels.astype(np.int64), tuple(str(digit) for digit in range(10)))


def _table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Grey levels (1797, 64) and labels (1797,), from scikit-learn's file, or where it lies elsewhere by its reader.

    Importing the reader takes three seconds, most of the time until the first line of the first command.
    """
    found = find_spec("sklearn")
    folders = found.submodule_search_locations if found and found.submodule_search_locations else []
    for file in (Path(folder, "datasets", "data", "digits.csv.gz") for folder in folders):
        if file.is_file():
            rows = np.loadtxt(file, delimiter=",")
            return rows[:, :-1], rows[:, -1]
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images, labels
