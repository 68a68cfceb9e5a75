"""Any dask array as a Gram matrix: the general path, which reads whatever the graph reads."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from advntk_dist.operators.base import GramOperator


class DaskArrayOperator(GramOperator):
    """Products with a square dask array, chunk by chunk in float64.

    For a Gram store use :class:`advntk_dist.operators.TiledOperator`, which reads each stored tile once; this
    one reads tiles below the diagonal again.
    """

    def __init__(self, theta: Any) -> None:
        if theta.ndim != 2 or theta.shape[0] != theta.shape[1] or theta.dtype.kind != "f":
            raise ValueError(
                f"a Gram matrix is a square array of floats, got shape {theta.shape} and dtype {theta.dtype}"
            )
        super().__init__(int(theta.shape[0]))
        self.theta = theta

    def _multiply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        block = da.from_array(v, chunks=(self.theta.chunks[1], -1))
        return np.asarray((self.theta.astype(np.float64) @ block).compute())

    def diagonal_mean(self) -> float:
        """Mean of the diagonal."""
        return float(da.diagonal(self.theta).mean(dtype=np.float64).compute())

    @property
    def description(self) -> str:
        """One line for logs."""
        return f"dask array ({self.n} x {self.n} {self.theta.dtype}, chunks {self.theta.chunksize})"
