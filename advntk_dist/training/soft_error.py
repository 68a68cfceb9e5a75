"""A smooth stand-in for the error rate that does not care how large a predictor's outputs are.

Outputs of a stopped kernel predictor are far from one-hot, and most attacked images are misclassified: a loss that sees
the size of outputs is lowered most easily by shrinking all of them, which changes no prediction. So margins are divided
by a size that goes with the outputs, and the gradient has no part along them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

SHARPNESS = 6.0
"""Margins of the median size count as sigmoid(+-6): 0.25% from 0 or 1. Blunter ones lost robust accuracy (measured)."""


@dataclass(frozen=True, eq=False)
class SoftError:
    """The value in (0, 1), its gradient (m, k) in the outputs, and the part of images that is classified correctly."""

    value: float
    gradient: Array
    accuracy: float


def soft_error(outputs: ArrayLike, labels: NDArray[np.int64], sharpness: float = SHARPNESS) -> SoftError:
    """Mean of sigmoid(sharpness x margin / size) over images.

    The margin of an image is its largest wrong output minus its right one, positive for an error; the size is the norm
    of all outputs, centred over classes, times a constant that makes it the median of absolute margins.

    Parameters
    ----------
    outputs
        Of a predictor, (m, k), k >= 2.
    labels
        Right classes (m,).
    sharpness
        How far a margin of the median size counts.

    Returns
    -------
    SoftError
        The gradient is exact for that constant held fixed, and orthogonal to the centred outputs.
    """
    f = np.asarray(outputs, dtype=np.float64)
    f = f - f.mean(axis=1, keepdims=True)
    m, rows = len(f), np.arange(len(f))
    wrong = f.copy()
    wrong[rows, labels] = -np.inf
    rival = wrong.argmax(axis=1)
    margin = f[rows, rival] - f[rows, labels]
    size = float(np.median(np.abs(margin)))
    if size == 0.0:  # as before any training: nothing to tell apart
        return SoftError(0.5, np.zeros_like(f), float((margin < 0).mean()))
    error = 1 / (1 + np.exp(-np.clip(sharpness * margin / size, -700.0, 700.0)))
    slope = sharpness / size * error * (1 - error) / m
    gradient = np.zeros_like(f)
    gradient[rows, rival] += slope
    gradient[rows, labels] -= slope
    gradient -= f * (gradient * f).sum() / (f * f).sum()
    return SoftError(float(error.mean()), gradient, float((margin < 0).mean()))
