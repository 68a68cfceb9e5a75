"""SVHN, cropped digits (format 2): MATLAB files train_32x32.mat and test_32x32.mat.

Source: Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011. ``X`` is
(32, 32, 3, n) uint8, ``y`` (n, 1) with labels 1..10, where 10 means the digit 0.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advntk_dist.data.dataset import Dataset, describe
from advntk_dist.data.files import MOST_BYTES, dataset_errors, read_bytes, require_path
from advntk_dist.errors import DatasetError

_TRAIN, _TEST = "train_32x32.mat", "test_32x32.mat"
_WHAT = f"the folder with {_TRAIN} and {_TEST} (advntk data fetch svhn)"
_SHAPE = (32, 32, 3)
_VARIABLES = ("X", "y")
_MAGIC = b"MATLAB 5.0 MAT-file"


def read_svhn(path: Path | None) -> Dataset:
    """Read SVHN: the rows of train_32x32.mat, then those of test_32x32.mat as the test set.

    Labels are the digits themselves, 0..9.

    Parameters
    ----------
    path
        Folder with both files.

    Raises
    ------
    DatasetError
        If a file is missing, cut short, damaged, not MATLAB 5, or holds other arrays or labels.
    """
    place = require_path(path, "svhn", _WHAT)
    missing = [name for name in (_TRAIN, _TEST) if not (place / name).exists()]
    if missing:
        raise DatasetError(f"{place}: {' and '.join(missing)} missing; set data.path to {_WHAT}")
    pieces = [(part, *_parse(place / name)) for part, name in (("train", _TRAIN), ("test", _TEST))]
    return Dataset.joined("svhn", pieces, tuple("0123456789"))


def holds_svhn(path: Path) -> bool:
    """Whether a folder has one of SVHN's files."""
    return (path / _TRAIN).is_file() or (path / _TEST).is_file()


def _parse(file: Path) -> tuple[np.ndarray, np.ndarray]:
    arrays = _load(file)
    x, y = arrays.get("X"), arrays.get("y")
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != _SHAPE or not x.size:
        raise DatasetError(
            f"{file}: X is {describe(x)}, not uint8 of shape {(*_SHAPE, 'n')}; it is not SVHN's cropped format, "
            "get it again"
        )
    n = x.shape[3]
    if not isinstance(y, np.ndarray) or not np.issubdtype(y.dtype, np.integer) or y.shape not in ((n, 1), (1, n)):
        raise DatasetError(f"{file}: y is {describe(y)}, not whole numbers of shape ({n}, 1); get it again")
    labels = y.reshape(-1).astype(np.int64)
    wrong = np.flatnonzero((labels < 1) | (labels > 10))
    if wrong.size:
        raise DatasetError(
            f"{file}: image {wrong[0]} has label {labels[wrong[0]]}, but SVHN's are 1..10 (10 means the digit 0); "
            "the file is damaged or converted, get it again"
        )
    return np.ascontiguousarray(x.transpose(3, 0, 1, 2)), labels % 10


def _load(file: Path) -> dict[str, Any]:
    from scipy.io import loadmat, whosmat

    content = read_bytes(file)
    if not content.startswith(_MAGIC):
        raise DatasetError(
            f"{file}: does not start as a MATLAB 5 file does ({content[:8]!r}); "
            "it is cut short or of another format, get it again"
        )
    with dataset_errors(f"{file}: not a readable MATLAB 5 file", "it is cut short or damaged, get it again"):
        # Shapes first: a variable of zeros unpacks to a thousand times its bytes.
        shapes: Sequence[tuple[str, tuple[int, ...], str]] = whosmat(io.BytesIO(content))  # type: ignore[arg-type]  # as below
        size = sum(int(math.prod(shape)) for name, shape, _ in shapes if name in _VARIABLES)
        if size > MOST_BYTES:
            raise DatasetError(f"{file}: unpacks to {size:,} values, more than any file of SVHN holds; get it again")
        return dict(loadmat(io.BytesIO(content), variable_names=_VARIABLES))  # type: ignore[arg-type]  # streams are documented
