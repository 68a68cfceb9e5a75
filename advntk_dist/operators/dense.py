"""The Gram matrix as one array in memory, of NumPy or of Dask, and matrices that are symmetric to rounding."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from advntk_dist.environment import usable_cores
from advntk_dist.errors import RequestError
from advntk_dist.grid import TileGrid
from advntk_dist.operators.base import GramOperator
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


SYMMETRIC_TO = 1e-3
"""Largest difference of mirrored entries that is taken for rounding, relative to the largest entry: float32 kernels of
nearly equal images differ by that much between processors."""


def not_a_matrix(theta: Any) -> RequestError:
    """The error that names an array's shape and dtype."""
    return RequestError(f"a Gram matrix is a square array of floats, got shape {theta.shape} and dtype {theta.dtype}")


def require_symmetric(gap: float, scale: float) -> None:
    """Raise RequestError if mirrored entries differ by up to ``gap``, more than rounding of the largest, ``scale``."""
    if gap > SYMMETRIC_TO * scale:
        raise RequestError(
            f"a Gram matrix is symmetric; mirrored entries of this one differ by up to {gap:.3g} (largest entry "
            f"{scale:.3g}); give the kernel of the training images with themselves"
        )


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
