"""Accuracies with their intervals, and the outcome of each image behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.intervals import wilson_interval

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
