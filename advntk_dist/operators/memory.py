"""The Gram matrix as one array in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.grid import TileGrid
from advntk_dist.operators.cores import usable_cores
from advntk_dist.operators.tiled import TiledOperator
from advntk_dist.operators.tiles import ArrayTiles

_TILE = 512

SYMMETRIC_TO = 1e-3
"""Largest difference of mirrored entries that is taken for rounding, relative to the largest entry."""


class InMemoryOperator(TiledOperator):
    """Products with a dense symmetric array, float32 or float64; only its upper half is read.

    Raises
    ------
    ValueError
        If the array is not a symmetric matrix of floats.
    """

    def __init__(self, theta: NDArray[Any], *, threads: int | None = None) -> None:
        if theta.ndim != 2 or theta.shape[0] != theta.shape[1] or theta.dtype.kind != "f":
            raise ValueError(
                f"a Gram matrix is a square array of floats, got shape {theta.shape} and dtype {theta.dtype}"
            )
        self.theta = theta if theta.flags.c_contiguous or not theta.flags.f_contiguous else theta.T
        self._require_symmetric()
        super().__init__(ArrayTiles(self.theta, min(_TILE, len(theta))), threads=threads or usable_cores())

    def _require_symmetric(self) -> None:
        scale, gap = 0.0, 0.0
        for t in TileGrid.square(len(self.theta), _TILE):
            upper, lower = self.theta[t.rows, t.cols], self.theta[t.cols, t.rows].T
            # Entries that are not finite are for the products to report.
            scale = max(scale, float(np.abs(upper, where=np.isfinite(upper), out=np.zeros_like(upper)).max()))
            difference = np.abs(upper - lower)
            gap = max(gap, float(np.nanmax(difference, initial=0.0)))
        if gap > SYMMETRIC_TO * scale:
            raise ValueError(
                f"a Gram matrix is symmetric; mirrored entries of this one differ by up to {gap:.3g} "
                f"(largest entry {scale:.3g})"
            )

    @property
    def held_bytes(self) -> int:
        """Memory of the matrix, in bytes."""
        return int(self.theta.nbytes)

    @property
    def description(self) -> str:
        """One line for logs."""
        return f"in memory ({self.n} x {self.n} {self.theta.dtype}, {self.theta.nbytes / 1e9:.2f} GB)"
