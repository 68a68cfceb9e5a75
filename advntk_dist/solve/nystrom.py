"""Randomised Nystrom preconditioner (Frangella, Tropp & Udell 2021, arXiv 2110.02820, algorithm 2.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular, svd

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NystromPreconditioner:
    """P^-1 = (last + ridge) U (diag(values) + ridge)^-1 U^T + (I - U U^T); no eigenvalue of it exceeds 1.

    Attributes
    ----------
    vectors
        U, (n, r), orthonormal.
    values
        Approximate leading eigenvalues, (r,), descending.
    ridge
        The ridge of the system that is preconditioned, absolute.
    """

    vectors: Array
    values: Array
    ridge: float

    def apply(self, block: Array, power: float = 1.0) -> Array:
        """P^-power block, (n, k)."""
        if not self.values.size:
            return block
        inside = self.vectors.T @ block
        scale = ((self.values[-1] + self.ridge) / (self.values + self.ridge)) ** power - 1.0
        return np.asarray(block + self.vectors @ (scale[:, None] * inside))


def nystrom_preconditioner(
    matmat: Callable[[Array], Array], n: int, rank: int, *, ridge: float, floor: float = 0.0, seed: int = 0
) -> NystromPreconditioner:
    """Sketch a positive semi-definite matrix in one pass with ``rank`` vectors; eigenvalues up to ``floor`` count as 0.

    Below rank 10 it is not worth a pass: the preconditioner is the identity.
    """
    if rank < 10:
        return NystromPreconditioner(np.zeros((n, 0)), np.zeros(0), ridge)
    rng = np.random.default_rng(seed)
    test, _ = np.linalg.qr(rng.standard_normal((n, rank)))
    sketch = matmat(test)
    # A shift at the level of rounding keeps the core positive definite; it is taken off the values again.
    shift = float(np.finfo(np.float64).eps * np.linalg.norm(sketch)) * max(1.0, n**0.5)
    shifted = sketch + shift * test
    core = test.T @ shifted
    core = (core + core.T) / 2
    for _ in range(30):
        try:
            lower = cholesky(core, lower=True)
            break
        except np.linalg.LinAlgError:
            # float32 tiles leave eigenvalues below zero: raise the shift until the core is definite.
            core[np.diag_indices(rank)] += 9 * shift
            shifted += 9 * shift * test
            shift *= 10
    else:
        return NystromPreconditioner(np.zeros((n, 0)), np.zeros(0), ridge)
    factor = solve_triangular(lower, shifted.T, lower=True).T
    u, s, _ = svd(factor, full_matrices=False)
    values = np.maximum(s**2 - shift, 0.0)
    keep = values > max(values[0] * 1e-14, floor)
    return NystromPreconditioner(np.ascontiguousarray(u[:, keep]), values[keep], ridge)
