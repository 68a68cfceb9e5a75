"""Any dask array as a Gram matrix: the general path, which reads whatever the graph reads."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from advntk_dist.operators.base import GramOperator
from advntk_dist.operators.symmetry import not_a_matrix, require_symmetric


class DaskArrayOperator(GramOperator):
    """Products with a symmetric dask array, chunk by chunk in float64.

    The matrix is what lies on and above the diagonal, mirrored, as for
    :class:`advntk_dist.operators.InMemoryOperator`; whether the rest is its mirror image, one reading finds out first.
    For a Gram store use :class:`advntk_dist.operators.TiledOperator`, which reads each stored tile once; this
    one reads tiles below the diagonal again.

    Raises
    ------
    RequestError
        If the array is not a symmetric matrix of floats.
    """

    def __init__(self, theta: Any) -> None:
        if theta.ndim != 2 or theta.shape[0] != theta.shape[1] or theta.dtype.kind != "f":
            raise not_a_matrix(theta)
        super().__init__(int(theta.shape[0]))
        self.theta = theta
        finite = da.isfinite(theta) & da.isfinite(theta.T)  # products report others
        gap = da.where(finite, da.fabs(theta - theta.T), 0.0).max()
        gap, scale = (float(found) for found in da.compute(gap, da.where(finite, da.fabs(theta), 0.0).max()))
        require_symmetric(gap, scale)
        self._symmetric = gap == 0

    def _multiply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        block = da.from_array(v, chunks=(self.theta.chunks[1], -1))
        wide = self.theta.astype(np.float64)
        if self._symmetric:
            return np.asarray((wide @ block).compute())
        mirrored = da.triu(wide, 1).T @ da.from_array(v, chunks=(self.theta.chunks[0], -1))
        return np.asarray((da.triu(wide) @ block + mirrored).compute())

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the array."""
        return np.dtype(self.theta.dtype)

    def diagonal_mean(self) -> float:
        """Mean of the diagonal."""
        return float(da.diagonal(self.theta).mean(dtype=np.float64).compute())

    @property
    def description(self) -> str:
        """One line for logs."""
        return f"dask array ({self.n} x {self.n} {self.theta.dtype}, chunks {self.theta.chunksize})"
