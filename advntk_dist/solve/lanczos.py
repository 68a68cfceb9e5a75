"""Block Lanczos for a symmetric positive semi-definite S = D^1/2 Theta D^1/2: how a Krylov basis grows.

The basis is grown from the start block b = D^1/2 Y with full reorthogonalisation. Theta D^1/2 Q is kept
beside Q, because residuals of the training dynamics need it where D has zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from advntk_dist.solve.columns import ColumnBudget, Columns
from advntk_dist.solve.krylov import KrylovBasis
from advntk_dist.solve.solution import Status

Array = NDArray[np.float64]

_DROP = 1e-13
"""Directions of a new block below this fraction of ||S|| are deflated; the bound accounts for them."""

_CLEARLY = 1e-12
"""Ritz values below this fraction of the largest, negated, are no rounding of float64 arithmetic."""

ROUNDING = 4 * float(np.finfo(np.float64).eps)
"""Rounding of a product with S, relative to its norm."""


def krylov_basis(
    matmat: Callable[[Array], Array],
    d: Array,
    y: Array,
    *,
    t: float,
    tolerance: float,
    max_passes: int = 200,
    max_columns: int | None = None,
    budget: ColumnBudget | None = None,
) -> KrylovBasis:
    """Grow a basis until c(t) = D^1/2 t phi_1(-t S) D^1/2 Y is known to the tolerance.

    Parameters
    ----------
    matmat
        V (n, j) -> Theta V (n, j), float64.
    d
        Diagonal of D, (n,), >= 0.
    y
        Right-hand block Y, (n, k).
    t
        Largest time that the basis must serve; smaller times are easier.
    tolerance
        Wanted bound on the relative error of c(t).
    max_passes
        Limit on products with Theta.
    max_columns
        Limit on the columns of the basis.
    budget
        Memory of its columns; without one they all stay in memory.

    Returns
    -------
    KrylovBasis
        Its ``status`` says whether the tolerance was met.
    """
    return grow_basis(
        matmat,
        np.sqrt(d),
        y,
        lambda basis: basis.error_and_floor(t),
        tolerance=tolerance,
        max_passes=max_passes,
        max_columns=max_columns,
        budget=budget,
    )


def grow_basis(
    matmat: Callable[[Array], Array],
    sqrt_d: Array,
    y: Array,
    measure: Callable[[KrylovBasis], tuple[float, float]],
    *,
    tolerance: float,
    max_passes: int,
    max_columns: int | None = None,
    budget: ColumnBudget | None = None,
    keep_image: bool = True,
) -> KrylovBasis:
    """Grow a basis until what is wanted of it is known to the tolerance.

    Parameters
    ----------
    matmat
        V (n, j) -> Theta V (n, j), float64.
    sqrt_d
        D^1/2 as a vector (n,).
    y
        Right-hand block Y, (n, k).
    measure
        The bound of the relative error that a basis gives, and its part that a larger one would not lower.
    tolerance
        Wanted bound on that error.
    max_passes, max_columns
        Limits on products with Theta and on the columns of the basis.
    budget
        Memory of its columns; without one they all stay in memory.
    keep_image
        Whether ``image`` of the basis is needed; without it, it has no columns.
    """
    growing = GrowingBasis(sqrt_d, y, budget or ColumnBudget(), keep_image=keep_image)
    return growing.grow(matmat, measure, tolerance=tolerance, max_passes=max_passes, max_columns=max_columns)


class GrowingBasis:
    """A basis that can go on growing when more is wanted of it, as a longer time, a smaller error, or the limit.

    Parameters
    ----------
    sqrt_d, y, keep_image
        As for :func:`grow_basis`.
    budget
        Memory of its columns.
    """

    def __init__(self, sqrt_d: Array, y: Array, budget: ColumnBudget, *, keep_image: bool = True) -> None:
        self.sqrt_d, self.keep_image = sqrt_d, keep_image
        self.q = Columns(len(sqrt_d), budget)
        self.image = Columns(len(sqrt_d), budget)  # last, so first to go: nothing needs it while the basis grows
        self.projected = np.zeros((0, 0))
        self.next_block, self.weights, self.start_dropped = _orthonormal(sqrt_d[:, None] * y, 0.0)
        self.beta = np.zeros((0, 0))
        self.dropped = 0.0
        self.passes = 0

    def grow(
        self,
        matmat: Callable[[Array], Array],
        measure: Callable[[KrylovBasis], tuple[float, float]],
        *,
        tolerance: float,
        max_passes: int,
        max_columns: int | None = None,
    ) -> KrylovBasis:
        """The basis as soon as what is wanted of it is known; arguments as for :func:`grow_basis`.

        It takes the place of those that this object has given before, whose columns it shares.
        """
        if self.weights.shape[0] == 0:
            return self.basis(Status.CONVERGED)
        check_at, seen = self.passes, None
        while True:
            exhausted, width = self.next_block.shape[1] == 0, self.q.shape[1]
            full = max_columns is not None and width + self.next_block.shape[1] > max_columns
            last = exhausted or full or self.passes >= max_passes
            if self.passes and (last or self.passes >= check_at):
                basis = self.basis(Status.CONVERGED)
                error, floor = measure(basis)
                if error <= tolerance:
                    return basis
                stalled = exhausted or (floor > tolerance and error <= 2 * floor)
                if last or stalled:
                    status = Status.STAGNATED if stalled else Status.BASIS_FULL if full else Status.MAX_PASSES
                    if stalled and basis.smallest_ritz < -_CLEARLY and measure(basis.without_clamp())[1] <= tolerance:
                        status = Status.NOT_POSITIVE  # without what is negative the tolerance would be met
                    return replace(basis, status=status)
                # The small eigenproblem is cubic in the width of the basis: look less often when it is wide, and when
                # the end is far.
                check_at = self.passes + max(1 + width // 400, _passes_to_wait(seen, (self.passes, error), tolerance))
                seen = self.passes, error
            self.step(matmat)

    def step(self, matmat: Callable[[Array], Array]) -> None:
        """One pass over the Gram matrix: take the waiting block into the basis, find the next one."""
        block = self.next_block
        image = matmat(self.sqrt_d[:, None] * block)
        self.passes += 1
        rest = self.sqrt_d[:, None] * image
        self.q.append(block)
        if self.keep_image:
            self.image.append(image)
        column = self.q.dot(rest)
        self.q.subtract(rest, column)
        again = self.q.dot(rest)  # the second sweep restores orthogonality to working precision
        self.q.subtract(rest, again)
        column += again
        size, width = self.projected.shape[0], block.shape[1]
        grown = np.zeros((size + width, size + width))
        grown[:size, :size] = self.projected
        grown[:, size:] = column
        grown[size:, :size] = column[:size].T
        grown[size:, size:] = (column[size:] + column[size:].T) / 2
        self.projected = grown
        scale = float(np.abs(grown).sum(axis=0).max())
        self.next_block, self.beta, dropped = _orthonormal(rest, _DROP * scale)
        if self.next_block.shape[1]:
            self.q.subtract(self.next_block, self.q.dot(self.next_block))
            self.next_block = np.linalg.qr(self.next_block)[0]
            self.beta = self.next_block.T @ rest
        self.dropped = max(self.dropped, dropped)

    def basis(self, status: Status) -> KrylovBasis:
        """The basis as it stands, diagonalised."""
        m, k = self.q.shape[1], self.weights.shape[1]
        start = np.zeros((m, k))
        start[: self.weights.shape[0]] = self.weights[:m]
        values, vectors = eigh(self.projected) if m else (np.zeros(0), np.zeros((0, 0)))
        largest = float(max(values[-1], 0.0)) if m else 0.0
        rows = self.beta.shape[1] if self.beta.size else 0
        coupling = self.beta @ vectors[m - rows :] if rows else np.zeros((0, m))
        return KrylovBasis(
            sqrt_d=self.sqrt_d,
            q=self.q,
            image=self.image,
            ritz=np.maximum(values, 0.0),
            vectors=vectors,
            start=vectors.T @ start,
            coupling=coupling,
            noise=ROUNDING * largest + self.dropped,
            start_noise=self.start_dropped + ROUNDING * float(np.linalg.norm(self.weights)),
            clamped=np.maximum(-values, 0.0),
            passes=self.passes,
            status=status,
            smallest_ritz=float(min(values[0], 0.0) / largest) if m and largest > 0 else 0.0,
        )


def _passes_to_wait(before: tuple[int, float] | None, now: tuple[int, float], tolerance: float) -> int:
    """Passes until the next look at an error that falls as it did since the last one: half of those it still needs.

    It is never more than an eighth of those taken: errors do not fall evenly.
    """
    if before is None or not 0 < now[1] < before[1] < np.inf:
        return 0
    rate = np.log(before[1] / now[1]) / (now[0] - before[0])
    return int(min(np.log(now[1] / tolerance) / rate / 2, now[0] // 8))


def _orthonormal(block: Array, drop_below: float) -> tuple[Array, Array, float]:
    """Rank-revealing factors block = q r with orthonormal q; the norm of what was dropped comes third."""
    if not block.any():
        return np.zeros((block.shape[0], 0)), np.zeros((0, block.shape[1])), 0.0
    q, r = np.linalg.qr(block)
    u, s, vt = np.linalg.svd(r, full_matrices=False)
    keep = s > max(drop_below, 1e-14 * s[0])
    dropped = float(s[~keep][0]) if not keep.all() else 0.0
    return q @ u[:, keep], s[keep, None] * vt[keep], dropped
