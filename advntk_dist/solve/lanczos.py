"""Block Lanczos for a symmetric positive semi-definite S = D^1/2 Theta D^1/2, and t phi_1(-t S) b from it.

The basis is grown from the start block b = D^1/2 Y with full reorthogonalisation. Theta D^1/2 Q is kept
beside Q, because residuals of the training dynamics need it where D has zeros.

Error bound. y(t) = t phi_1(-t S) b solves y' = b - S y, y(0) = 0. The Krylov approximation Q u(t) leaves the
residual r(s) = -Q_next beta u_last(s), and since exp(-s S) is a contraction, || y(t) - Q u(t) || is at most the
integral of || r(s) || over [0, t]. Rounding and deflated directions of the products enter as a residual of their
own, proportional to || u(s) ||; what deflation and rounding took from b itself, as a constant one. Negative Ritz values
(rounding in the tiles) are clamped at 0: what the clamp changes is a residual too, and as exp(-s S) then grows, the
bound is multiplied by its largest growth that the Ritz values show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.linalg import eigh

from advntk_dist.grid import spans
from advntk_dist.solve.columns import ColumnBudget, Columns
from advntk_dist.solve.phi import phi_1
from advntk_dist.solve.solution import Status

Array = NDArray[np.float64]

_DROP = 1e-13
"""Directions of a new block below this fraction of ||S|| are deflated; the bound accounts for them."""

_ROUNDING = 4 * float(np.finfo(np.float64).eps)
_ARITHMETIC = 128 * float(np.finfo(np.float64).eps)
"""Rounding of a product with S relative to its norm, and of forming the value from the basis."""

_NODES, _WEIGHTS = leggauss(6)

_TIMES_AT_ONCE = 8
"""Times whose coefficients are formed in one product with the basis."""


@dataclass(frozen=True, eq=False)
class KrylovBasis:
    """An orthonormal block-Krylov basis of S, diagonalised.

    Attributes
    ----------
    sqrt_d
        D^1/2 as a vector (n,).
    q
        Orthonormal basis (n, m), in memory or partly on disk.
    image
        Theta D^1/2 q, (n, m), likewise.
    ritz, vectors
        Eigenvalues (m,), clamped at 0, and eigenvectors (m, m) of the projected matrix q^T S q.
    start
        The start block in the eigenbasis, vectors^T q^T b, (m, k).
    coupling
        beta vectors_last, (r, m): couples the last block to the one that was not taken into the basis.
    noise
        Norm of the deflated and rounded part of each product with S.
    start_noise
        Norm of the deflated part of the start block b.
    clamped
        What the clamp at 0 added to each Ritz value, (m,), >= 0.
    passes
        Passes over the Gram matrix.
    status
        How the growth of the basis ended.
    smallest_ritz
        The most negative Ritz value before clamping, relative to the largest.
    """

    sqrt_d: Array
    q: Columns
    image: Columns
    ritz: Array
    vectors: Array
    start: Array
    coupling: Array
    noise: float
    start_noise: float
    clamped: Array
    passes: int
    status: Status
    smallest_ritz: float

    def coefficients(self, t: float) -> Array:
        """c(t) = D^1/2 t phi_1(-t S) D^1/2 Y, (n, k)."""
        return self.solve([t])[0][0]

    def error(self, t: float) -> float:
        """Bound of the relative error of coefficients(t), Frobenius norm (see the module's text)."""
        return self.solve([t])[0][1]

    def solve(self, times: Sequence[float]) -> list[tuple[Array, float]]:
        """Coefficients (n, k) and the bound of their relative error, for each time."""
        found: list[tuple[Array, float]] = []
        leaks, rests = self._residual_integrals(times)
        for batch in spans(len(times), _TIMES_AT_ONCE):
            for place, value in zip(range(len(times))[batch], self._values(times[batch]), strict=True):
                found.append((value, sum(self._relative(value, times[place], leaks[place], rests[place]))))
        return found

    def error_and_floor(self, t: float) -> tuple[float, float]:
        """The bound, and its part that a larger basis would not lower: rounding, deflation and clamping."""
        leaks, rests = self._residual_integrals([t])
        leak, rest = self._relative(next(self._values([t])), t, leaks[0], rests[0])
        return leak + rest, rest

    def _values(self, times: Sequence[float]) -> Iterator[Array]:
        k = self.start.shape[1]
        if not self.ritz.size:
            yield from (np.zeros((len(self.sqrt_d), k)) for _ in times)
            return
        small = np.hstack([self.vectors @ ((t * phi_1(-t * self.ritz))[:, None] * self.start) for t in times])
        whole = self.q.times(small)
        for columns in spans(whole.shape[1], k):
            yield whole[:, columns] * self.sqrt_d[:, None]

    def _relative(self, value: Array, t: float, leak: float, rest: float) -> tuple[float, float]:
        """Both residual integrals as bounds relative to the value: || D^1/2 e || <= max D^1/2 || e ||."""
        if t == 0 or not self.ritz.size:
            return 0.0, 0.0
        size = float(np.linalg.norm(value))
        if size == 0:
            return float("inf"), 0.0
        with np.errstate(over="ignore"):
            factor = float(self.sqrt_d.max() / size * np.exp(t * self.clamped.max()))
        return factor * leak, factor * rest

    def _residual_integrals(self, times: Sequence[float]) -> tuple[Array, Array]:
        """Integrals over [0, t] of the residual that a larger basis lowers, and of the rest, for each time."""
        at = np.asarray(times, dtype=np.float64)
        longest = float(at.max(initial=0.0))
        if longest == 0 or not self.ritz.size:
            return np.zeros(len(at)), np.zeros(len(at))
        panels = min(80, int(np.ceil(np.log2(max(1.0, longest * float(self.ritz[-1]))))) + 8)
        edges = np.unique(np.concatenate([[0.0], longest * 2.0 ** np.arange(-panels, 1), at]))
        middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
        nodes = (middle[:, None] + half[:, None] * _NODES).ravel()
        factors = nodes[:, None] * phi_1(-nodes[:, None] * self.ritz)
        # The residual -Q_next beta u_last has entries sum_m coupling_rm factor_m start_mk.
        last = factors @ (self.coupling.T[:, :, None] * self.start[:, None, :]).reshape(len(self.ritz), -1)
        amplitudes = (factors**2) * (self.start**2).sum(axis=1)
        whole, clamp = np.sqrt(amplitudes.sum(axis=1)), np.sqrt(amplitudes @ self.clamped**2)
        place = np.searchsorted(edges, at)

        def integral(values: Array) -> Array:
            pieces = (values.reshape(-1, len(_NODES)) @ _WEIGHTS) * half
            return np.concatenate([[0.0], np.cumsum(pieces)])[place]

        leak = integral(np.linalg.norm(last, axis=1))
        final = at[:, None] * phi_1(-at[:, None] * self.ritz)
        made = _ARITHMETIC * np.sqrt((final**2) @ (self.start**2).sum(axis=1))
        return leak, integral(clamp + self.noise * whole) + at * self.start_noise + made


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
    sqrt_d = np.sqrt(d)
    block, weights, dropped = _orthonormal(sqrt_d[:, None] * y, 0.0)
    growth = _Growth(sqrt_d, block, weights, dropped, budget or ColumnBudget())
    if block.shape[1] == 0:
        return growth.basis(Status.CONVERGED)
    check_at = 1
    while True:
        growth.step(matmat)
        exhausted = growth.next_block.shape[1] == 0
        width = growth.q.shape[1]
        full = max_columns is not None and width + growth.next_block.shape[1] > max_columns
        last = exhausted or full or growth.passes >= max_passes
        if last or growth.passes >= check_at:
            basis = growth.basis(Status.CONVERGED)
            error, floor = basis.error_and_floor(t)
            if error <= tolerance:
                return basis
            stalled = exhausted or (floor > tolerance and error <= 2 * floor)
            if last or stalled:
                status = Status.STAGNATED if stalled else Status.BASIS_FULL if full else Status.MAX_PASSES
                return growth.basis(status)
            # The small eigenproblem is cubic in the width of the basis: look less often when it is wide.
            check_at = growth.passes + 1 + width // 400


class _Growth:
    """The state of a growing basis."""

    def __init__(self, sqrt_d: Array, block: Array, weights: Array, dropped: float, budget: ColumnBudget) -> None:
        self.sqrt_d = sqrt_d
        self.q = Columns(len(sqrt_d), budget)
        self.image = Columns(len(sqrt_d), budget)  # last, so first to go: nothing needs it while the basis grows
        self.projected = np.zeros((0, 0))
        self.next_block = block
        self.beta = np.zeros((0, 0))
        self.weights = weights
        self.start_dropped = dropped
        self.dropped = 0.0
        self.passes = 0

    def step(self, matmat: Callable[[Array], Array]) -> None:
        """One pass over the Gram matrix: take the waiting block into the basis, find the next one."""
        block = self.next_block
        image = matmat(self.sqrt_d[:, None] * block)
        self.passes += 1
        rest = self.sqrt_d[:, None] * image
        self.q.append(block)
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
            noise=_ROUNDING * largest + self.dropped,
            start_noise=self.start_dropped + _ROUNDING * float(np.linalg.norm(self.weights)),
            clamped=np.maximum(-values, 0.0),
            passes=self.passes,
            status=status,
            smallest_ritz=float(min(values[0], 0.0) / largest) if m and largest > 0 else 0.0,
        )


def _orthonormal(block: Array, drop_below: float) -> tuple[Array, Array, float]:
    """Rank-revealing factors block = q r with orthonormal q; the norm of what was dropped comes third."""
    if not block.any():
        return np.zeros((block.shape[0], 0)), np.zeros((0, block.shape[1])), 0.0
    q, r = np.linalg.qr(block)
    u, s, vt = np.linalg.svd(r, full_matrices=False)
    keep = s > max(drop_below, 1e-14 * s[0])
    dropped = float(s[~keep][0]) if not keep.all() else 0.0
    return q @ u[:, keep], s[keep, None] * vt[keep], dropped
