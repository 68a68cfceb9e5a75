"""Closed-form AT dynamics of an infinitely wide network, and its gradient in the effective training times.

Fu & Wang (2024), theorem 2: f_t(x) = Theta(x, X) c(t) with c(t) = Theta^-1 (I - exp(-t Theta D)) Y, D = Diag(varpi).
Written as c(t) = t D^1/2 phi_1(-t S) D^1/2 Y, S = D^1/2 Theta D^1/2, it needs no inverse and allows zeros in varpi.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.errors import RequestError
from advntk_dist.operators import GramOperator, as_operator
from advntk_dist.operators.base import blas_threads
from advntk_dist.solve.cg import solve_infinite_time
from advntk_dist.solve.columns import ColumnBudget
from advntk_dist.solve.krylov import KrylovBasis, time_integral
from advntk_dist.solve.lanczos import GrowingBasis, krylov_basis
from advntk_dist.solve.limit import least_squares_limit, limit_in_basis, rank_cutoff
from advntk_dist.solve.memory_budget import plan_solver
from advntk_dist.solve.solution import Solution, Status

Array = NDArray[np.float64]

DEFAULT_TOLERANCE = 1e-8

_LARGE = 2**18
"""Entries of a block of vectors from which several threads pay off; below, they would mostly wait for each other."""


@dataclass
class _Known:
    """A basis of coefficients that may grow on, and how far it is known to serve."""

    key: bytes
    growing: GrowingBasis
    basis: KrylovBasis | None = None
    t: float = 0.0
    tol: float = 0.0


class ATDynamics:
    """The dynamics of training on (X, Y), seen through the Gram matrix of X.

    Parameters
    ----------
    theta
        Gram matrix (n, n): numpy array, dask array, or :class:`GramOperator`; positive semi-definite. Of an array that
        is symmetric to rounding only, what lies on and above the diagonal is taken as the matrix: errors are those of
        its solutions.
    y
        Targets (n, k), usually one-hot.
    ridge
        Added to the diagonal at t = infinity, relative to the mean of the diagonal.
    max_passes
        Limit on passes over the Gram matrix in one solve.
    memory
        Memory for all of it in this process, matrix included but not what is returned, in bytes; None for no limit.
        Krylov bases that outgrow their share go to disk.
    scratch
        Folder for them; the system's temporary folder by default.

    Raises
    ------
    ValueError
        If y does not have n rows, or is not finite.
    RequestError
        If an array is no symmetric matrix of floats, or the memory is too little for any solve.

    Notes
    -----
    t = infinity. Of a matrix that is not singular c(infinity) = Theta^-1 Y on the samples with varpi > 0. Of a singular
    one, as with two equal images, c(t) may grow without end and f_t(x) still has a limit; c(infinity) gives it:

        c(infinity) = D^1/2 S^+ D^1/2 Y,    S = D^1/2 Theta D^1/2,

    S^+ the pseudo-inverse. Theta c(infinity) is then the weighted least-squares fit, the minimiser of
    || D^1/2 (Theta c - Y) ||: what of D^1/2 Y lies in the null space of S is left out (``Solution.left_out`` says how
    much), and equal images with different labels get the mean of the labels, weighted by varpi. An eigenvalue counts
    as 0 up to the rounding of entries of the matrix's dtype, 4 (eps(dtype) sqrt(n) + eps(float64) n) times the mean of
    the diagonal (:func:`advntk_dist.solve.limit.rank_cutoff`); with a ridge, none does.
    """

    def __init__(
        self,
        theta: Any,
        y: ArrayLike,
        *,
        ridge: float = 0.0,
        max_passes: int = 1000,
        memory: int | None = None,
        scratch: str | Path | None = None,
    ) -> None:
        self.operator: GramOperator = as_operator(theta)
        self.y: Array = np.array(y, dtype=np.float64)  # a copy: cached bases belong to it
        if self.y.ndim != 2 or self.y.shape[0] != self.operator.n or not np.isfinite(self.y).all():
            raise ValueError(
                f"targets must be finite and of shape ({self.operator.n}, k) for this Gram matrix, got {self.y.shape}"
            )
        self.ridge, self.max_passes = ridge, max_passes
        self.memory = memory
        self.plan = plan_solver(self.operator, self.y.shape[1], memory)
        self._threads = 1 if self.y.size < _LARGE else None
        self.scratch = None if scratch is None else Path(scratch)
        self._last: _Known | None = None

    def coefficients(
        self, varpi: ArrayLike, t: float = 1.0, tol: float = DEFAULT_TOLERANCE, *, throw: bool = True
    ) -> Solution:
        """c(t), (n, k): every prediction is Theta(x, X) c(t).

        Parameters
        ----------
        varpi
            Effective training times (n,), >= 0, or one number for all.
        t
            Common factor of the times; numpy.inf for the plain NTK regressor on the samples with varpi > 0 (the class's
            notes define it where the matrix is singular).
        tol
            Wanted bound on the relative error, Frobenius norm, between 0 and 1.
        throw
            Raise when the tolerance is missed; otherwise return the solution with its failed status.

        Raises
        ------
        ValueError
            If varpi or t is negative, not a number, or of the wrong shape.
        RequestError
            If tol is not between 0 and 1.
        SolverError
            If the tolerance is missed and ``throw`` is set.
        """
        return self.trajectory(varpi, [t], tol, throw=throw)[0]

    def trajectory(
        self, varpi: ArrayLike, times: Sequence[float], tol: float = DEFAULT_TOLERANCE, *, throw: bool = True
    ) -> list[Solution]:
        """c(t) at many times from one Krylov basis; arguments and errors as for :meth:`coefficients`.

        Where all varpi > 0 are equal, t = infinity goes on with the same basis.
        """
        d = self._varpi(varpi)
        if any(not t >= 0 for t in times):
            raise ValueError(f"times must be >= 0, got {list(times)}")
        _require_tolerance(tol)
        with blas_threads(self._threads):
            return self._trajectory(d, times, tol, throw)

    def _trajectory(self, d: Array, times: Sequence[float], tol: float, throw: bool) -> list[Solution]:
        finite = [t for t in times if np.isfinite(t)]
        basis = self._basis(d, max(finite), tol) if finite and max(finite) > 0 else None
        served = [t for t in finite if t > 0]
        found = dict(zip(served, _solutions(basis, served, tol), strict=True)) if basis is not None else {}
        ended = basis is not None and basis.status in (Status.STAGNATED, Status.NOT_POSITIVE)
        del basis  # its memory is that of t = infinity, where the basis cannot go on
        limit = self._infinite(d, tol) if len(finite) < len(times) else None  # the basis goes on growing
        solutions = []
        for t in times:
            if np.isinf(t):
                assert limit is not None
                solution = limit
            elif t not in found:
                solution = Solution(np.zeros_like(self.y), Status.CONVERGED, 0, 0.0)
            else:
                solution = found[t]
                if not solution.ok and ended and t < max(finite):
                    # Rounding ended this basis at the largest time; a smaller one may still be within reach.
                    (solution,) = _solutions(self._basis(d, t, tol), [t], tol)
            solutions.append(solution.checked(f"coefficients at t = {t:g}", tol) if throw else solution)
        return solutions

    def leading_eigenvalues(
        self, varpi: ArrayLike, t: float = 1.0, tol: float = DEFAULT_TOLERANCE
    ) -> tuple[Array, Array]:
        """Eigenvalues of S = D^1/2 Theta D^1/2 as the Krylov basis of :meth:`coefficients` knows them.

        After ``trajectory`` with the same varpi, its largest finite time and tolerance, no pass is needed.

        Returns
        -------
        eigenvalues, errors
            (m,) each: positive Ritz values, descending, and for each the bound || S q - lambda q || of its distance to
            an eigenvalue of S. Only those known to a tenth of their size.
        """
        _require_tolerance(tol)
        with blas_threads(self._threads):
            basis = self._basis(self._varpi(varpi), t, tol)
        errors = np.linalg.norm(basis.coupling, axis=0) + basis.noise + basis.clamped
        known = (basis.ritz > 0) & (errors <= 0.1 * basis.ritz)
        order = np.argsort(-basis.ritz[known], kind="stable")
        return basis.ritz[known][order], errors[known][order]

    def loss_and_gradient(
        self, varpi: ArrayLike, k_val: ArrayLike, y_val: ArrayLike, tol: float = DEFAULT_TOLERANCE
    ) -> tuple[float, Array]:
        """L = 1/(2m) || K_v c(varpi) - Y_v ||_F^2 at t = 1, and its gradient in varpi.

        With v = K_v^T (K_v c - Y_v) / m the gradient is the integral over tau in [0, 1] of
        sum_c lambda_ic(tau) r_ic(tau), where r(tau) = exp(-tau Theta D) Y and
        lambda(tau) = exp(-(1 - tau) Theta D) v. Both are known in the eigenbasis of a Krylov basis, so that the
        integral is exact in divided differences.

        Parameters
        ----------
        varpi, tol
            As for :meth:`value_and_gradient`, as are result and errors.
        k_val
            Kernel (m, n) between validation points and training images.
        y_val
            Validation targets (m, k).
        """
        k_val, y_val = np.asarray(k_val), np.asarray(y_val, dtype=np.float64)
        n, k = self.y.shape
        if k_val.ndim != 2 or k_val.shape[1] != n or y_val.shape != (k_val.shape[0], k):
            raise ValueError(f"k_val must be (m, {n}) and y_val (m, {k}), got {k_val.shape} and {y_val.shape}")

        def squared_error(c: Array) -> tuple[float, Array]:
            residual = k_val @ c - y_val
            return 0.5 * float((residual**2).sum()) / len(y_val), k_val.T @ residual / len(y_val)

        return self.value_and_gradient(varpi, squared_error, tol)

    def value_and_gradient(
        self, varpi: ArrayLike, objective: Callable[[Array], tuple[float, Array]], tol: float = DEFAULT_TOLERANCE
    ) -> tuple[float, Array]:
        """Any function of the coefficients c(varpi) at t = 1, and its gradient in varpi.

        As :meth:`loss_and_gradient`, with v the function's own gradient in c.

        Parameters
        ----------
        varpi
            Effective training times (n,), >= 0.
        objective
            Takes coefficients (n, k) to a value and its gradient (n, k) in them.
        tol
            Tolerance of the two solves.

        Returns
        -------
        value, gradient
            A float, and an array (n,).

        Raises
        ------
        ValueError
            If shapes do not fit.
        RequestError
            If tol is not between 0 and 1.
        SolverError
            If a solve misses the tolerance.
        """
        d = self._varpi(varpi)
        _require_tolerance(tol)
        with blas_threads(self._threads):
            forward = self._basis(d, 1.0, tol)
            (solution,) = _solutions(forward, [1.0], tol)
            value, slope = objective(solution.checked("coefficients at t = 1", tol).value)
            v = np.asarray(slope, dtype=np.float64)
            if v.shape != self.y.shape:
                raise ValueError(f"the objective's gradient must be {self.y.shape}, got {v.shape}")
            backward = krylov_basis(
                self.operator.matmat,
                d,
                v,
                t=1.0,
                tolerance=tol,
                max_passes=self.max_passes,
                max_columns=self.plan.max_columns,
                budget=ColumnBudget(self.plan.basis, self.scratch),
            )
            _solutions(backward, [1.0], tol)[0].checked("adjoint at t = 1", tol)
            return value, time_integral(forward, self.y, backward, v, self.plan.work_rows(forward.q.m + backward.q.m))

    def _varpi(self, varpi: ArrayLike) -> Array:
        d = np.asarray(varpi, dtype=np.float64)
        if d.ndim == 0:
            d = np.full(self.operator.n, float(d))
        if d.shape != (self.operator.n,) or not (np.isfinite(d).all() and (d >= 0).all()):
            raise ValueError(f"varpi must be {self.operator.n} finite numbers >= 0, got shape {d.shape}")
        return d

    def _basis(self, d: Array, t: float, tol: float) -> KrylovBasis:
        """The basis of (varpi, Y) up to time t; the last one is kept, as attack and gradient ask for the same."""
        last = self._growing(d)
        if last.basis is not None and last.t >= t and last.tol <= tol:
            return last.basis
        if last.growing.passes:  # begun afresh, so that a solve has the same numbers whatever was solved before
            self._last = None
            last = self._growing(d)
        basis = last.growing.grow(
            self.operator.matmat,
            lambda basis: basis.error_and_floor(t),
            tolerance=tol,
            max_passes=self.max_passes,
            max_columns=self.plan.max_columns,
        )
        if basis.status is Status.CONVERGED:
            last.basis, last.t, last.tol = basis, t, tol
        else:
            self._last = None
        return basis

    def _growing(self, d: Array) -> _Known:
        """The basis of (varpi, Y), whose first block is known."""
        key = d.tobytes()
        if self._last is None or self._last.key != key:
            self._last = None  # one basis of coefficients at a time: memory is planned for that
            growing = GrowingBasis(np.sqrt(d), self.y, ColumnBudget(self.plan.basis, self.scratch))
            self._last = _Known(key, growing)
        return self._last

    def _infinite(self, d: Array, tol: float) -> Solution:
        support = (d > 0)[:, None]
        if not support.any():
            return Solution(np.zeros_like(self.y), Status.CONVERGED, 0, 0.0)
        diagonal = self.operator.diagonal_mean()
        cutoff = 0.0 if self.ridge else rank_cutoff(self.operator.n, diagonal, self.operator.dtype)

        def matmat(v: Array) -> Array:
            return np.asarray(np.where(support, self.operator.matmat(np.where(support, v, 0.0)), 0.0))

        spent = 0
        if (d[d > 0] == d.max()).all():
            growing = self._growing(d).growing
            solution = limit_in_basis(
                growing,
                self.operator.matmat,
                cutoff=cutoff,
                ridge=self.ridge * diagonal,
                tolerance=tol,
                max_passes=self.max_passes,
                max_columns=self.plan.max_columns,
            )
            spent = solution.passes
            if solution.ok or self.max_passes - spent <= 3:
                return solution
            del growing
            self._last = None  # the preconditioner wants its memory
        solution = solve_infinite_time(
            matmat,
            np.where(support, self.y, 0.0),
            tolerance=tol,
            ridge=self.ridge * diagonal,
            max_passes=self.max_passes - spent,
            rank=self.plan.rank,
            cutoff=cutoff,
        )
        spent += solution.passes
        if solution.status is Status.NOT_POSITIVE and not self.ridge and self.max_passes - spent > 3:
            self._last = None  # one basis at a time
            limit = least_squares_limit(
                matmat,
                d,
                self.y,
                cutoff=cutoff,
                tolerance=tol,
                max_passes=self.max_passes - spent,
                rank=self.plan.rank,
                max_columns=self.plan.max_columns,
                budget=ColumnBudget(self.plan.basis, self.scratch),
            )
            solution, spent = limit, spent + limit.passes
        # The preconditioner leaves rounding outside the support.
        return replace(solution, passes=spent, value=np.where(support, solution.value, 0.0))


def _require_tolerance(tol: float) -> None:
    if not 0 < tol < 1:
        raise RequestError(f"tol: must be > 0 and < 1, a bound on the relative error, got {tol}")


def _solutions(basis: KrylovBasis, times: Sequence[float], tol: float) -> list[Solution]:
    missed = Status.STAGNATED if basis.status is Status.CONVERGED else basis.status
    return [
        Solution(value, Status.CONVERGED if error <= tol else missed, basis.passes, error, basis.smallest_ritz)
        for value, error in basis.solve(times)
    ]
