"""The Gram matrix as one array in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.grid import TileGrid
from advntk_dist.operators.cores import usable_cores
from advntk_dist.operators.symmetry import not_a_matrix, require_symmetric
from advntk_dist.operators.tiled import TiledOperator
from advntk_dist.operators.tiles import ArrayTiles

_TILE = 512


class InMemoryOperator(TiledOperator):
    """Products with a dense symmetric array, float32 or float64.

    The matrix is what lies on and above the diagonal, mirrored: where an array is symmetric to rounding only, solutions
    and their errors are those of exactly this symmetric matrix.

    Raises
    ------
    RequestError
        If the array is not a symmetric matrix of floats.
    """

    def __init__(self, theta: NDArray[Any], *, threads: int | None = None) -> None:
        if theta.ndim != 2 or theta.shape[0] != theta.shape[1] or theta.dtype.kind != "f":
            raise not_a_matrix(theta)
        exact = self._is_symmetric(theta)
        # Faster to read, and where it is exactly symmetric the same matrix.
        self.theta = theta.T if exact and theta.flags.f_contiguous and not theta.flags.c_contiguous else theta
        tiles = ArrayTiles(self.theta, min(_TILE, len(theta)), mirrored=not exact)
        super().__init__(tiles, threads=threads or usable_cores())

    @staticmethod
    def _is_symmetric(theta: NDArray[Any]) -> bool:
        """Whether mirrored entries are equal, not only to rounding; entries that are not finite are not looked at."""
        scale, gap = 0.0, 0.0
        for t in TileGrid.square(len(theta), _TILE):
            upper, lower = theta[t.rows, t.cols], theta[t.cols, t.rows].T
            finite = np.isfinite(upper) & np.isfinite(lower)  # products report others
            scale = max(scale, float(np.abs(upper).max(where=finite, initial=0.0)))
            gap = max(gap, float(np.abs(np.subtract(upper, lower, where=finite, out=np.zeros_like(upper))).max()))
        require_symmetric(gap, scale)
        return gap == 0

    @property
    def held_bytes(self) -> int:
        """Memory of the matrix, in bytes."""
        return int(self.theta.nbytes)

    @property
    def description(self) -> str:
        """One line for logs."""
        return f"in memory ({self.n} x {self.n} {self.theta.dtype}, {self.theta.nbytes / 1e9:.2f} GB)"
