"""What falls with width, and how fast: a power law through trials of several widths and seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import linregress, t

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Slope:
    """log value = intercept + slope log width, least squares over trials; 95% t interval of the slope."""

    slope: float
    low: float
    high: float
    intercept: float
    trials: int

    def as_dict(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def fit_slope(widths: ArrayLike, values: ArrayLike) -> Slope:
    """Fit a power of the width to one positive value a trial.

    Raises
    ------
    ValueError
        If there are fewer than three trials or two widths, or a value is not positive and finite.
    """
    x, y = np.asarray(widths, np.float64), np.asarray(values, np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3 or len(set(x.tolist())) < 2:
        raise ValueError(f"a slope needs three trials of two widths, got widths {x.tolist()} and {y.size} values")
    if not (np.isfinite(y).all() and (y > 0).all()):
        raise ValueError(f"a power law needs positive values, got {y.tolist()}")
    line = linregress(np.log(x), np.log(y))
    half = float(t.ppf(0.975, len(x) - 2)) * float(line.stderr)
    return Slope(float(line.slope), float(line.slope) - half, float(line.slope) + half, float(line.intercept), len(x))


@dataclass(frozen=True, eq=False)
class EnsembleComparison:
    """Networks of one width against the closed form, time by time.

    Attributes
    ----------
    distance
        Root mean square over images and outputs of (mean over seeds - closed form), (times,).
    standard_error
        Root mean square of the mean's standard error, (times,): the distance that chance alone would make.
    within
        Fraction of entries whose closed form lies in the mean's 95% t interval, (times,); 0.95 for exact agreement.
    """

    distance: Array
    standard_error: Array
    within: Array


def compare_with_closed_form(outputs: Array, closed_form: Array) -> EnsembleComparison:
    """Compare outputs of seeds (seeds, times, m, k), at least two seeds, with the closed form (times, m, k)."""
    seeds = len(outputs)
    if seeds < 2:
        raise ValueError(f"a standard error needs two seeds, got {seeds}")
    difference = outputs.mean(axis=0) - closed_form
    error = outputs.std(axis=0, ddof=1) / np.sqrt(seeds)
    inside = np.abs(difference) <= float(t.ppf(0.975, seeds - 1)) * error
    axes = (1, 2)
    return EnsembleComparison(
        np.sqrt((difference**2).mean(axis=axes)), np.sqrt((error**2).mean(axis=axes)), inside.mean(axis=axes)
    )
