"""The Gram matrix as one array in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.grid import spans
from advntk_dist.operators.base import GramOperator

_STRIP_BYTES = 8 * 2**20
"""Rows are widened to float64 in strips of this many bytes, so that the copy stays in cache."""


class InMemoryOperator(GramOperator):
    """Products with a dense array, float32 or float64, widened strip by strip.

    Raises
    ------
    ValueError
        If the array is not a square matrix of floats.
    """

    def __init__(self, theta: NDArray[Any]) -> None:
        if theta.ndim != 2 or theta.shape[0] != theta.shape[1] or theta.dtype.kind != "f":
            raise ValueError(
                f"a Gram matrix is a square array of floats, got shape {theta.shape} and dtype {theta.dtype}"
            )
        super().__init__(theta.shape[0])
        self.theta = theta

    def _multiply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.theta.dtype == np.float64:
            return np.asarray(self.theta @ v)
        out = np.empty_like(v)
        for rows in spans(self.n, max(1, _STRIP_BYTES // (8 * self.n))):
            out[rows] = self.theta[rows].astype(np.float64) @ v
        return out

    def diagonal_mean(self) -> float:
        """Mean of the diagonal."""
        return float(np.diagonal(self.theta).mean(dtype=np.float64))

    @property
    def description(self) -> str:
        """One line for logs."""
        return f"in memory ({self.n} x {self.n} {self.theta.dtype}, {self.theta.nbytes / 1e9:.2f} GB)"
