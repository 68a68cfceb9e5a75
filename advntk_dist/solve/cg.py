"""Theta c = Y by preconditioned conjugate gradients: the dynamics at t = infinity.

It is for varpi that differ, and for what a Krylov basis without a preconditioner cannot reach in its memory
(:func:`advntk_dist.solve.limit.limit_in_basis`).

All columns of Y share each pass. Error bound: with a preconditioner P^-1 of norm at most 1,
|| c - c* || <= sqrt(r^T P^-1 r) / theta, where theta is the smallest eigenvalue of the preconditioned matrix. It is
estimated by the smallest Ritz value that the conjugate-gradient coefficients contain (a Lanczos process in
disguise), with a factor of safety because Ritz values come down from above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, eigvalsh_tridiagonal, solve_triangular, svd

from advntk_dist.solve.memory_budget import MAX_RANK
from advntk_dist.solve.solution import Solution, Status

Array = NDArray[np.float64]

_SAFETY = 2.0
_RESTARTS = 3
_CHECK_EVERY = 5


def solve_infinite_time(
    matmat: Callable[[Array], Array],
    y: Array,
    *,
    tolerance: float,
    ridge: float = 0.0,
    max_passes: int = 1000,
    rank: int | None = None,
    cutoff: float = 0.0,
) -> Solution:
    """The coefficients c = (Theta + ridge I)^-1 Y of the plain NTK regressor.

    Where targets lie in the range of a singular matrix, those of the smallest norm.

    Parameters
    ----------
    matmat
        V (n, j) -> Theta V (n, j), float64, Theta positive semi-definite.
    y
        Right-hand block (n, k).
    tolerance
        Wanted bound on the relative error of c, Frobenius norm.
    ridge
        Added to the diagonal, absolute.
    max_passes
        Limit on passes over the Gram matrix.
    rank
        Rank of the Nystrom preconditioner; below 10 there is none. By default a quarter of n, at most 300.
    cutoff
        Eigenvalues up to it are 0 to working precision.

    Returns
    -------
    Solution
        Its status is NOT_POSITIVE where the targets have a part in directions of negative curvature, or of
        eigenvalues up to the cut-off: then :func:`advntk_dist.solve.limit.least_squares_limit` has the answer, if
        there is one.
    """
    n = len(y)
    if not y.any():
        return Solution(np.zeros_like(y), Status.CONVERGED, 0, 0.0)

    def regularised(v: Array) -> Array:
        return matmat(v) + ridge * v

    rank = min(MAX_RANK if rank is None else rank, n // 4)
    # Eigenvalues next to the cut-off would let the preconditioner draw all others down to it.
    precondition = nystrom_preconditioner(matmat, n, rank, ridge=ridge, floor=10 * cutoff).apply
    passes, c, residual = int(rank >= 10), np.zeros_like(y), y.copy()
    status, error, theta = Status.MAX_PASSES, float("inf"), float("inf")
    for _ in range(_RESTARTS):
        if max_passes - passes < 2:  # a step, and the pass that measures the true residual
            status = Status.MAX_PASSES
            break
        most = max_passes - passes - 1
        run = _conjugate_gradients(regularised, precondition, residual, c, theta, tolerance, most, cutoff)
        c, status, theta = run.c, run.status, run.theta
        # The recursion's residual drifts from the true one: the bound is taken from the true one.
        residual = y - regularised(c)
        passes += run.passes + 1
        energy = float(np.sqrt(max(0.0, (residual * precondition(residual)).sum())))
        # Without a Ritz value nothing is known of theta, and where the matrix is not positive it means nothing.
        known = 0 < theta < np.inf and status is not Status.NOT_POSITIVE
        size = max(float(np.linalg.norm(c)), np.finfo(float).tiny)
        error = _SAFETY * energy / theta / size if known else float("inf")
        if status is not Status.CONVERGED or error <= tolerance:
            break
    if status is not Status.NOT_POSITIVE and error <= tolerance:
        status = Status.CONVERGED
    elif status is Status.CONVERGED:
        status = Status.STAGNATED
    return Solution(c, status, passes, error)


class _Run:
    def __init__(self, c: Array, status: Status, passes: int, theta: float) -> None:
        self.c, self.status, self.passes, self.theta = c, status, passes, theta


def _conjugate_gradients(
    matmat: Callable[[Array], Array],
    precondition: Callable[[Array], Array],
    residual: Array,
    c: Array,
    theta: float,
    tolerance: float,
    max_passes: int,
    cutoff: float,
) -> _Run:
    r, c = residual.copy(), c.copy()
    z = precondition(r)
    p, rz = z.copy(), np.einsum("ij,ij->j", r, z)
    active = rz > 0
    alphas: list[Array] = []
    betas: list[Array] = []
    for step in range(1, max_passes + 1):
        product = matmat(p)
        curvature = np.einsum("ij,ij->j", p, product)
        if (curvature[active] <= 0).any() or not np.isfinite(curvature).all():
            return _Run(c, Status.NOT_POSITIVE, step, theta)
        alpha = np.where(active, rz / np.where(active, curvature, 1.0), 0.0)
        c += alpha * p
        r -= alpha * product
        z = precondition(r)
        rz_next = np.einsum("ij,ij->j", r, z)
        beta = np.where(active, rz_next / np.where(active, rz, 1.0), 0.0)
        alphas.append(alpha)
        betas.append(beta)
        # A column whose residual has fallen to rounding stops moving, or its coefficients turn to noise.
        floor = np.finfo(np.float64).eps ** 2 * np.maximum(1e-300, np.einsum("ij,ij->j", residual, residual))
        active &= rz_next > floor
        p, rz = z + beta * p, rz_next
        # A good preconditioner is done in a few steps, and steps past that would only stir up rounding.
        if step <= 2 * _CHECK_EVERY or step % _CHECK_EVERY == 0 or not active.any():
            theta = min(theta, _smallest_ritz(alphas, betas))
            if theta <= cutoff:
                return _Run(c, Status.NOT_POSITIVE, step, theta)
            error = _SAFETY * float(np.sqrt(np.maximum(rz, 0.0).sum())) / theta
            if error <= 0.5 * tolerance * float(np.linalg.norm(c)) or not active.any():
                return _Run(c, Status.CONVERGED, step, theta)
    theta = min(theta, _smallest_ritz(alphas, betas)) if alphas else theta
    return _Run(c, Status.MAX_PASSES, max(max_passes, 0), theta)


def _smallest_ritz(alphas: list[Array], betas: list[Array]) -> float:
    """Smallest eigenvalue over columns of the Lanczos matrices that the CG coefficients define."""
    smallest = float("inf")
    for alpha, beta in zip(np.array(alphas).T, np.array(betas).T, strict=True):
        m = int(np.argmin(alpha > 0)) if (alpha <= 0).any() else len(alpha)
        if m == 0:
            continue
        diagonal = 1.0 / alpha[:m]
        diagonal[1:] += beta[: m - 1] / alpha[: m - 1]
        beside = np.sqrt(np.maximum(beta[: m - 1], 0.0)) / alpha[: m - 1]
        smallest = min(smallest, float(eigvalsh_tridiagonal(diagonal, beside).min()))
    return max(smallest, 0.0)


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
