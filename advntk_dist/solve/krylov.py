"""t phi_1(-t S) b and a bound of its error, from a block-Krylov basis of S = D^1/2 Theta D^1/2.

Error bound. y(t) = t phi_1(-t S) b solves y' = b - S y, y(0) = 0. The Krylov approximation Q u(t) leaves the
residual r(s) = -Q_next beta u_last(s), and since exp(-s S) is a contraction, || y(t) - Q u(t) || is at most the
integral of || r(s) || over [0, t]. Rounding and deflated directions of the products enter as a residual of their
own, proportional to || u(s) ||; what deflation and rounding took from b itself, as a constant one. Negative Ritz values
(rounding in the tiles) are clamped at 0: what the clamp changes is a residual too, and as exp(-s S) then grows, the
bound is multiplied by its largest growth that the Ritz values show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray

from advntk_dist.grid import spans
from advntk_dist.solve.columns import Columns
from advntk_dist.solve.phi import phi_1, phi_2, phi_2_difference
from advntk_dist.solve.solution import Status

Array = NDArray[np.float64]

_ARITHMETIC = 128 * float(np.finfo(np.float64).eps)
"""Rounding of forming the value from the basis, relative to its terms."""

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
        Orthonormal basis, (n, m) in its first columns, in memory or partly on disk; what grows on adds to it.
    image
        Theta D^1/2 q, likewise.
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

    def without_clamp(self) -> KrylovBasis:
        """The basis as if no Ritz value had been negative: what else there is to its error shows."""
        return replace(self, clamped=np.zeros_like(self.clamped))

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


def time_integral(forward: KrylovBasis, y: Array, backward: KrylovBasis, v: Array, rows: int) -> Array:
    """Integral over tau in [0, 1] of sum_c lambda_ic(tau) r_ic(tau), for each sample i.

    Here r(tau) = exp(-tau Theta D) Y and lambda(tau) = exp(-(1 - tau) Theta D) v. Both are known in the eigenbasis of a
    Krylov basis, so that the integral is exact in divided differences.

    Parameters
    ----------
    forward, backward
        Bases grown from D^1/2 Y and from D^1/2 v.
    y, v
        Targets (n, k), and the gradient (n, k) of the objective in the coefficients.
    rows
        Samples at once, which bounds the memory.

    Returns
    -------
    numpy.ndarray
        The gradient in varpi, (n,).
    """
    a, b = forward.ritz, backward.ritz
    past = phi_2(-a)[:, None] * forward.start
    future = phi_2(-b)[:, None] * backward.start
    middle = (forward.start @ backward.start.T) * phi_2_difference(-a[:, None], -b[None, :])
    total = (v * y).sum(axis=1)
    for span in spans(len(total), rows):
        # In the eigenbases, not the bases: where the gradient is small against its terms, these cancel mode by mode.
        left, right = (basis.image.rows(span)[:, : len(basis.ritz)] @ basis.vectors for basis in (backward, forward))
        total[span] -= (v[span] * (right @ past)).sum(axis=1)
        total[span] -= (y[span] * (left @ future)).sum(axis=1)
        total[span] += ((right @ middle) * left).sum(axis=1)
    return total
