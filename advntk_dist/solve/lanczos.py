"""Block Lanczos for a symmetric positive semi-definite S = D^1/2 Theta D^1/2, and t phi_1(-t S) b from it.

The basis is grown from the start block b = D^1/2 Y with full reorthogonalisation. Theta D^1/2 Q is kept
beside Q, because residuals of the training dynamics need it where D has zeros.

Error bound. y(t) = t phi_1(-t S) b solves y' = b - S y, y(0) = 0. The Krylov approximation Q u(t) leaves the
residual r(s) = -Q_next beta u_last(s), and since exp(-s S) is a contraction, || y(t) - Q u(t) || is at most the
integral of || r(s) || over [0, t]. Rounding and deflated directions of the products enter as a residual of their
own, proportional to || u(s) ||; what deflation took from b itself, as a constant one. Negative Ritz values (rounding
in the tiles) are clamped at 0: what the clamp changes is a residual too, and as exp(-s S) then grows, the bound is
multiplied by its largest growth that the Ritz values show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.linalg import eigh

from advntk_dist.solve.phi import phi_1
from advntk_dist.solve.solution import Status

Array = NDArray[np.float64]

_DROP = 1e-13
"""Directions of a new block below this fraction of ||S|| are deflated; the bound accounts for them."""

_ROUNDING = 4 * float(np.finfo(np.float64).eps)
_NODES, _WEIGHTS = leggauss(6)


@dataclass(frozen=True, eq=False)
class KrylovBasis:
    """An orthonormal block-Krylov basis of S, diagonalised.

    Attributes
    ----------
    sqrt_d
        D^1/2 as a vector (n,).
    q
        Orthonormal basis (n, m).
    image
        Theta D^1/2 q, (n, m).
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
    q: Array
    image: Array
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

    def amplitudes(self, t: float) -> Array:
        """t phi_1(-t S) b in the eigenbasis of the projected matrix, (m, k)."""
        return (t * phi_1(-t * self.ritz))[:, None] * self.start

    def coefficients(self, t: float) -> Array:
        """c(t) = D^1/2 t phi_1(-t S) D^1/2 Y, (n, k)."""
        if not self.ritz.size:
            return np.zeros((len(self.sqrt_d), self.start.shape[1]))
        return self.sqrt_d[:, None] * (self.q @ (self.vectors @ self.amplitudes(t)))

    def error(self, t: float) -> float:
        """Bound of the relative error of coefficients(t), Frobenius norm (see the module's text)."""
        return self.error_and_floor(t)[0]

    def error_and_floor(self, t: float) -> tuple[float, float]:
        """The bound, and its part that a larger basis would not lower: rounding, deflation and clamping."""
        if t == 0 or not self.ritz.size:
            return 0.0, 0.0
        # || D^1/2 e || <= max D^1/2 || e ||; the norm of the value is taken without forming the value.
        small = self.vectors @ self.amplitudes(t)
        size = float(np.linalg.norm(self.sqrt_d[:, None] * (self.q @ small)))
        if size == 0:
            return float("inf"), 0.0
        with np.errstate(over="ignore"):
            factor = float(self.sqrt_d.max() / size * np.exp(t * self.clamped.max()))
        leak, rest = self._residual_integrals(t)
        return factor * (leak + rest), factor * rest

    def _residual_integrals(self, t: float) -> tuple[float, float]:
        fastest = max(1.0, t * float(self.ritz[-1]))
        panels = min(80, int(np.ceil(np.log2(fastest))) + 8)
        edges = t * np.concatenate([[0.0], 2.0 ** np.arange(-panels, 1)])
        middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
        times = (middle[:, None] + half[:, None] * _NODES).ravel()
        weights = (half[:, None] * _WEIGHTS).ravel()
        factors = times[:, None] * phi_1(-times[:, None] * self.ritz)
        last = np.einsum("rm,sm,mk->srk", self.coupling, factors, self.start, optimize=True)
        leak = np.sqrt((last**2).sum(axis=(1, 2)))
        amplitudes = (factors**2) * (self.start**2).sum(axis=1)
        whole, clamp = np.sqrt(amplitudes.sum(axis=1)), np.sqrt(amplitudes @ self.clamped**2)
        return float(weights @ leak), float(weights @ (clamp + self.noise * whole)) + t * self.start_noise


def krylov_basis(
    matmat: Callable[[Array], Array],
    d: Array,
    y: Array,
    *,
    t: float,
    tolerance: float,
    max_passes: int = 200,
    max_columns: int | None = None,
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
        Limit on the columns of the basis (memory: two float64 arrays of n rows).

    Returns
    -------
    KrylovBasis
        Its ``status`` says whether the tolerance was met.
    """
    sqrt_d = np.sqrt(d)
    block, weights, dropped = _orthonormal(sqrt_d[:, None] * y, 0.0)
    growth = _Growth(sqrt_d, block, weights, dropped)
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

    def __init__(self, sqrt_d: Array, block: Array, weights: Array, dropped: float) -> None:
        n = len(sqrt_d)
        self.sqrt_d = sqrt_d
        self.q = np.zeros((n, 0))
        self.image = np.zeros((n, 0))
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
        product = self.sqrt_d[:, None] * image
        self.q = np.hstack([self.q, block])
        self.image = np.hstack([self.image, image])
        column = self.q.T @ product
        rest = product - self.q @ column
        again = self.q.T @ rest  # the second sweep restores orthogonality to working precision
        rest -= self.q @ again
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
            self.next_block -= self.q @ (self.q.T @ self.next_block)
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
            start_noise=self.start_dropped,
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
    u, s, vt = np.linalg.svd(r)
    keep = s > max(drop_below, 1e-14 * s[0])
    dropped = float(s[~keep][0]) if not keep.all() else 0.0
    return q @ u[:, keep], s[keep, None] * vt[keep], dropped
