"""Accuracies and differences of methods on the same images, with their intervals and the outcomes behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("clean_correct", "robust_correct", "perturbation")
"""Of a table of outcomes, one row an image."""


@dataclass(frozen=True)
class Accuracy:
    """A fraction of correct answers with its 95% Wilson interval."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, correct: NDArray[Any]) -> Accuracy:
        """The accuracy of (n,) outcomes, each 0 or 1; n >= 1."""
        hits, n = int(np.count_nonzero(correct)), len(correct)
        return cls(hits / n, *wilson_interval(hits / n, n), n)


@dataclass(frozen=True)
class MethodResult:
    """How a predictor does on clean and attacked images."""

    clean: Accuracy
    robust: Accuracy
    max_perturbation: float
    """Largest perturbation that the attack really used, in units of the pixel range."""
    clean_right: NDArray[np.bool_] = field(repr=False, compare=False)
    robust_right: NDArray[np.bool_] = field(repr=False, compare=False)
    """Which images (n,) are classified correctly, clean and after the attack."""

    @classmethod
    def of(cls, clean: NDArray[Any], robust: NDArray[Any], max_perturbation: float) -> MethodResult:
        """The result of (n,) outcomes each, 0 or 1; n >= 1."""
        return cls(Accuracy.of(clean), Accuracy.of(robust), max_perturbation, clean > 0, robust > 0)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as results.json has them."""
        return {
            "clean": self.clean.value,
            "clean_interval": [self.clean.low, self.clean.high],
            "robust": self.robust.value,
            "robust_interval": [self.robust.low, self.robust.high],
            "n_test": self.clean.n,
            "max_perturbation": self.max_perturbation,
        }


def paired_differences(methods: Mapping[str, MethodResult]) -> list[dict[str, Any]]:
    """Every method against every one before it, as results.json has it; differences are fractions of the images.

    An interval of a difference is shorter than those of the two accuracies suggest, as what makes an image hard makes
    it so for both methods.

    Raises
    ------
    ValueError
        If two methods were not judged on the same number of images.
    """
    rows = []
    for (against, old), (method, new) in combinations(methods.items(), 2):
        if old.clean.n != new.clean.n:
            raise ValueError(f"{method} was judged on {new.clean.n} images and {against} on {old.clean.n}")
        rows.append(
            {"method": method, "against": against, "n_test": new.clean.n}
            | _difference("clean", new.clean_right, old.clean_right)
            | _difference("robust", new.robust_right, old.robust_right)
        )
    return rows


def _difference(name: str, new: NDArray[np.bool_], old: NDArray[np.bool_]) -> dict[str, Any]:
    won, lost, n = int((new & ~old).sum()), int((old & ~new).sum()), len(new)
    return {name: (won - lost) / n, f"{name}_interval": list(paired_interval(won, lost, n))}


def wilson_interval(fraction: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of ``round(fraction * n)`` successes in ``n`` trials, through scipy."""
    from scipy.stats import binomtest  # takes more than a second to import: commands that count nothing need not wait

    interval = binomtest(round(fraction * n), n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def paired_interval(won: int, lost: int, n: int) -> tuple[float, float]:
    """95% interval of the difference (won - lost) / n of two fractions that were counted on the same ``n`` images.

    Bonett & Price (2012), adjusted Wald: one image is added to those that only the first method gets right (``won``)
    and one to those that only the second does (``lost``), so that the interval has a length even where no image tells
    the methods apart.
    """
    from scipy.special import ndtri

    up, down = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = float(ndtri(0.975)) * ((up + down - (up - down) ** 2) / (n + 2)) ** 0.5
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def student_interval(mean: float, deviation: float, n: int) -> tuple[float, float]:
    """Student's 95% interval of the mean of ``n`` >= 2 values with this mean and standard deviation (n - 1)."""
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.975)) * deviation / n**0.5
    return mean - half, mean + half
