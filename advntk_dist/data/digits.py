"""The embedded default: scikit-learn's copy of the UCI handwritten digits, 1,797 real 8x8 images.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

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
    from sklearn.datasets import load_digits  # takes two seconds to import, and workers need none of it

    bunch = load_digits()
    x = np.rint(bunch.images * 255 / 16).astype(np.uint8)[..., None]
    return Dataset("digits", x, bunch.target.astype(np.int64), tuple(str(c) for c in bunch.target_names))
