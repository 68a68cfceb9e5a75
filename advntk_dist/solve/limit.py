"""The limit t = infinity where the Gram matrix is singular: weighted least squares.

As t grows, exp(-t S) of S = D^1/2 Theta D^1/2 tends to the projector P_0 on the null space of S, and c(t) to
D^1/2 (S^+ + t P_0) D^1/2 Y. Theta D^1/2 P_0 = 0, so what grows with t is seen in no prediction, and

    c(infinity) = D^1/2 S^+ D^1/2 Y

gives their limits: Theta c is the minimiser of || D^1/2 (Theta c - Y) ||. The part P_0 D^1/2 Y of the targets is left
out. Two equal images with different labels are both given the mean of the labels, weighted by varpi.

S^+ is applied in a block-Krylov basis of B = P^-1/2 S P^-1/2, P a Nystrom preconditioner that is the identity on the
null space. Ritz values up to the cut-off belong to the null space, others are inverted. Error bound: with u the
coefficients of the value in the eigenbasis of the projection, L the coupling of kept Ritz vectors to what the basis
lacks, N that of the null ones, and w the targets' part in these, the value is off by at most

    || L u || / theta + || L Ritz^-1 u || + || N w || / theta^2,

theta the smallest eigenvalue of B above the cut-off: what the basis does not reach, what its vectors have of the null
space, and what its null vectors have of the rest. theta is estimated by the smallest Ritz value that is kept, with a
factor of safety because Ritz values come down from above; where that comes near the cut-off nothing is known, as the
spectrum has no gap that would tell its null space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from advntk_dist.solve.cg import NystromPreconditioner, nystrom_preconditioner
from advntk_dist.solve.columns import ColumnBudget
from advntk_dist.solve.krylov import KrylovBasis
from advntk_dist.solve.lanczos import ROUNDING, GrowingBasis, grow_basis
from advntk_dist.solve.solution import Solution, Status

Array = NDArray[np.float64]

_SAFETY = 2.0

_GAP = 2.0
"""How far above the cut-off the other eigenvalues have to be."""


def rank_cutoff(n: int, diagonal_mean: float, dtype: np.dtype[np.floating]) -> float:
    """The size up to which an eigenvalue of a Gram matrix is 0 to working precision.

    A symmetric matrix of independent errors of size s has norm 2 s sqrt(n); entries are up to a few units of rounding
    off, and at most about the mean of the diagonal in size. The rounding of float64 arithmetic, relative to the trace,
    comes on top:

        4 (eps(dtype) sqrt(n) + eps(float64) n) diagonal_mean.

    Parameters
    ----------
    n
        Rows of the matrix.
    diagonal_mean
        Mean of its diagonal.
    dtype
        Type that its entries were rounded to.
    """
    eps = float(np.finfo(dtype).eps)
    return 4 * (eps * n**0.5 + float(np.finfo(np.float64).eps) * n) * diagonal_mean


def least_squares_limit(
    matmat: Callable[[Array], Array],
    varpi: Array,
    y: Array,
    *,
    cutoff: float,
    tolerance: float,
    max_passes: int,
    rank: int,
    max_columns: int | None = None,
    budget: ColumnBudget | None = None,
) -> Solution:
    """c(infinity) = D^1/2 S^+ D^1/2 Y, S = D^1/2 Theta D^1/2 (see the module's text).

    Parameters
    ----------
    matmat
        V (n, j) -> Theta V (n, j), float64, Theta positive semi-definite.
    varpi
        Diagonal of D, (n,), >= 0, not all 0; only ratios matter.
    y
        Targets (n, k).
    cutoff
        Eigenvalues up to it are 0: of Theta where varpi is uniform, else of S scaled to a largest varpi of 1.
    tolerance
        Wanted bound on the relative error of c, Frobenius norm.
    max_passes
        Limit on passes over the Gram matrix.
    rank
        Rank of the Nystrom preconditioner; below 10 there is none.
    max_columns, budget
        Limit on the columns of the Krylov basis, and their memory.

    Returns
    -------
    Solution
        Its status is NOT_POSITIVE where there are eigenvalues below the negated cut-off. Its ``left_out`` says how much
        of the targets was left out.
    """
    sqrt_d = np.sqrt(varpi / varpi.max())[:, None]

    def scaled(v: Array) -> Array:
        return np.asarray(sqrt_d * matmat(sqrt_d * v))

    precondition = nystrom_preconditioner(scaled, len(y), rank, ridge=0.0, floor=10 * cutoff)
    before = int(rank >= 10)
    if precondition.values.size:
        # A power step takes out what rounding has left in it of the null space.
        sharper = np.linalg.qr(scaled(precondition.vectors) / precondition.values)[0]
        precondition, before = replace(precondition, vectors=sharper), before + 1
    limit = _PreconditionedLimit(sqrt_d, precondition, cutoff)
    basis = grow_basis(
        lambda v: precondition.apply(scaled(precondition.apply(v, 0.5)), 0.5),
        np.ones(len(y)),
        precondition.apply(sqrt_d * y, 0.5),
        limit.measure,
        tolerance=tolerance,
        max_passes=max_passes - before,
        max_columns=max_columns,
        budget=budget,
        keep_image=False,
    )
    found = limit.solution(basis, tolerance, float(np.linalg.norm(sqrt_d * y)))
    # The preconditioner has drawn the largest eigenvalues down; what is negative it leaves alone.
    highest = float(basis.ritz.max(initial=0.0))
    largest = max(highest, float(precondition.values.max(initial=0.0)))
    smallest = basis.smallest_ritz * highest / largest if largest > 0 else 0.0
    return replace(found, passes=found.passes + before, smallest_ritz=smallest)


def limit_in_basis(
    growing: GrowingBasis,
    matmat: Callable[[Array], Array],
    *,
    cutoff: float,
    ridge: float = 0.0,
    tolerance: float,
    max_passes: int,
    max_columns: int | None = None,
) -> Solution:
    """c(infinity) = D^1/2 (S + ridge D)^+ D^1/2 Y where all varpi > 0 are equal, in a basis that may be there.

    Shifts and factors leave a Krylov space as it is, so that the basis of finite times is the beginning of this one.

    Parameters
    ----------
    growing
        Of S and D^1/2 Y; it grows as far as it has to.
    matmat, tolerance, max_columns
        As for :func:`least_squares_limit`.
    cutoff
        Eigenvalues of Theta + ridge up to it are 0; with a ridge, 0.
    ridge
        Added to the diagonal of Theta, absolute.
    max_passes
        Limit on passes, those that the basis has taken among them.

    Returns
    -------
    Solution
        Where it is not ``ok`` other methods may know more: this one has no preconditioner, and its basis has to fit.
    """
    limit = _UniformLimit(growing.sqrt_d, cutoff, ridge)
    basis = growing.grow(matmat, limit.measure, tolerance=tolerance, max_passes=max_passes, max_columns=max_columns)
    return limit.solution(basis, tolerance, float(np.linalg.norm(growing.weights)))


class _Limit(ABC):
    """The limit that a Krylov basis gives, and its error."""

    factor: float | None = None
    """Norm of c over that of its coefficients in the basis, where that is a constant."""

    def __init__(self, cutoff: float, shift: float = 0.0, noise: float = 0.0) -> None:
        self.cutoff, self._shift, self._noise = cutoff, shift, noise

    @abstractmethod
    def value(self, basis: KrylovBasis, small: Array) -> Array:
        """c (n, k), from its coefficients in the basis, (m, k)."""

    def size(self, basis: KrylovBasis, small: Array) -> float:
        """Norm of c, likewise."""
        return float(np.linalg.norm(self.value(basis, small) if self.factor is None else self.factor * small))

    def solution(self, basis: KrylovBasis, tolerance: float, targets: float) -> Solution:
        """What the basis gives, with its error, for targets of this weighted norm."""
        error = self.measure(basis)[0]
        status = Status.CONVERGED if error <= tolerance else basis.status
        ritz, kept = self._spectrum(basis)
        value = self.value(basis, basis.vectors[:, kept] @ (basis.start[kept] / ritz[kept, None]))
        left_out = float(np.linalg.norm(basis.start[~kept])) / targets if targets > 0 else 0.0
        return Solution(value, status, basis.passes, error, basis.smallest_ritz, left_out)

    def measure(self, basis: KrylovBasis) -> tuple[float, float]:
        """Bound of the relative error, and its part that a larger basis would not lower."""
        ritz, kept = self._spectrum(basis)
        if ritz.min(initial=0.0) < -self.cutoff:
            return float("inf"), float("inf")
        if not kept.any():  # exact where the products vanish
            return (float("inf"), 0.0) if np.linalg.norm(basis.coupling) > self.cutoff else (0.0, 0.0)
        u, null, inverted = basis.start[kept] / ritz[kept, None], basis.start[~kept], ritz[kept, None]
        size = self.size(basis, basis.vectors[:, kept] @ u)
        theta = float(inverted.min()) / _SAFETY
        if theta <= _GAP * self.cutoff or size == 0:
            return float("inf"), 0.0

        def part(norm: Callable[[Array, NDArray[np.bool_]], float]) -> float:
            return (norm(u, kept) / theta + norm(u / inverted, kept) + norm(null, ~kept) / theta**2) / size

        noise = basis.noise + self._noise
        leak = part(lambda small, where: float(np.linalg.norm(basis.coupling[:, where] @ small)))
        rest = part(lambda small, _: noise * float(np.linalg.norm(small))) + basis.start_noise / theta / size
        return leak + rest, rest

    def _spectrum(self, basis: KrylovBasis) -> tuple[Array, NDArray[np.bool_]]:
        """Ritz values, not clamped, and which of them are inverted."""
        ritz = basis.ritz - basis.clamped + self._shift
        return ritz, ritz > self.cutoff


class _UniformLimit(_Limit):
    """Of a basis of S where all varpi > 0 are equal; the bound is that of S / varpi = Theta on these samples."""

    def __init__(self, sqrt_d: Array, cutoff: float, ridge: float) -> None:
        self.factor = root = float(sqrt_d.max())
        super().__init__(cutoff * root**2, ridge * root**2)

    def value(self, basis: KrylovBasis, small: Array) -> Array:
        """c (n, k), from its coefficients in the basis, (m, k)."""
        return np.asarray(basis.sqrt_d[:, None] * basis.q.times(small))


class _PreconditionedLimit(_Limit):
    """Of a basis of B = P^-1/2 S P^-1/2."""

    def __init__(self, sqrt_d: Array, precondition: NystromPreconditioner, cutoff: float) -> None:
        ends = precondition.values[[0, -1]] if precondition.values.size else np.zeros(2)
        # S takes in what P^-1/2 has drawn down.
        super().__init__(cutoff, noise=ROUNDING * float(np.sqrt(ends.prod())))
        self.sqrt_d, self.precondition = sqrt_d, precondition

    def value(self, basis: KrylovBasis, small: Array) -> Array:
        """c (n, k), from its coefficients in the basis, (m, k)."""
        return np.asarray(self.sqrt_d * self.precondition.apply(basis.q.times(small), 0.5))
