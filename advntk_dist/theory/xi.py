"""Xi(t) = Diag(integral_0^t exp(Theta_x(x_i, x_i) eta_i(tau) S) d tau), Fu & Wang (2024), theorem 2.

The effective training times of adversarial training with an inner gradient flow of length S and rate eta_i. Everything
is kept in logarithms: the exponent Theta_x eta S is easily in the hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad_vec

from advntk_dist.errors import RequestError, SolverError
from advntk_dist.theory.schedules import Schedule, as_schedule

Array = NDArray[np.float64]

Eta = float | ArrayLike | Schedule | Callable[[float], ArrayLike]

_PROBES = 33
"""Points of a smooth piece among which its largest exponent is looked for, to scale the integrand."""


def xi(theta_x: ArrayLike, eta: Eta, *, inner_time: float, times: Sequence[float], tol: float = 1e-10) -> Array:
    """Diagonals of Xi(t), (times, n): the effective training times of adversarial training.

    Parameters
    ----------
    theta_x
        ARK (n,) at the training images, :meth:`Network.ark`.
    eta
        Rate of the inner flow, >= 0: a number, one per sample (n,), a schedule of
        :mod:`advntk_dist.theory.schedules`, or a function of t that returns a number or (n,).
    inner_time
        Length S >= 0 of the inner flow.
    times
        Training times t >= 0; numpy.inf is allowed and gives inf.
    tol
        Relative tolerance of the quadrature, where there is no closed form.

    Raises
    ------
    RequestError
        If an argument is impossible, or a value at finite t is beyond float64: then see :func:`log_xi`.
    SolverError
        If the quadrature misses the tolerance.
    """
    logs = log_xi(theta_x, eta, inner_time=inner_time, times=times, tol=tol)
    limit = np.log(np.finfo(np.float64).max)
    for t, row in zip(times, logs, strict=True):
        if np.isfinite(t) and row.max(initial=-np.inf) > limit:
            raise RequestError(
                f"xi: at t = {t:g} the largest effective time is exp({row.max():.4g}), beyond float64; "
                "take a smaller eta or inner_time, or log_xi"
            )
    return np.exp(logs)


def log_xi(theta_x: ArrayLike, eta: Eta, *, inner_time: float, times: Sequence[float], tol: float = 1e-10) -> Array:
    """Logarithms of :func:`xi`, (times, n): -inf at t = 0, inf at t = inf; they never overflow."""
    ark = np.asarray(theta_x, dtype=np.float64)
    if ark.ndim != 1 or not np.isfinite(ark).all() or (ark < 0).any():
        raise RequestError(f"theta_x must be finite numbers >= 0, one per sample; got shape {ark.shape}")
    if not (np.isfinite(inner_time) and inner_time >= 0):
        raise RequestError(f"inner_time must be >= 0 and finite, got {inner_time}")
    grid = np.asarray(times, dtype=np.float64)
    if grid.ndim != 1 or not (grid >= 0).all():
        raise RequestError(f"times must be >= 0, got {times}")
    schedule = as_schedule(eta)
    exponent = _Exponent(ark * inner_time, schedule)
    out = np.full((len(grid), len(ark)), -np.inf)
    out[np.isinf(grid)] = np.inf  # the integrand is at least 1
    finite = np.unique(grid[np.isfinite(grid)])
    end = finite[-1] if len(finite) else 0.0
    edges = np.unique(np.concatenate([[0.0], finite, schedule.kinks(end)]))
    total = np.full(len(ark), -np.inf)
    for a, b in pairwise(edges):
        total = np.logaddexp(total, _piece(exponent, a, b, schedule.constant_between_kinks, tol))
        out[grid == b] = total
    return out


class _Exponent:
    """Theta_x eta(t) S, (n,); checks what a schedule returns."""

    def __init__(self, scale: Array, schedule: Schedule) -> None:
        self.scale, self.schedule = scale, schedule

    def __call__(self, t: float) -> Array:
        rate = np.asarray(self.schedule(t), dtype=np.float64)
        if rate.shape not in ((), self.scale.shape) or not np.isfinite(rate).all() or (rate < 0).any():
            raise RequestError(
                f"eta at t = {t:g} must be finite numbers >= 0, one or {len(self.scale)}; got shape {rate.shape}"
                + (f" from {rate.min():g} to {rate.max():g}" if rate.size else "")
            )
        return np.asarray(self.scale * rate)


def _piece(exponent: _Exponent, a: float, b: float, constant: bool, tol: float) -> Array:
    """log of the integral of exp(exponent) from a to b, (n,), without kinks in between."""
    if constant:
        return np.asarray(np.log(b - a) + exponent(0.5 * (a + b)))
    # Inside the open interval: at its ends a schedule may already belong to the neighbours.
    inner = np.linspace(a, b, _PROBES)[1:-1]
    top = np.maximum.reduce([exponent(t) for t in (*inner, a, b)])

    def integrand(t: float) -> Array:
        # 1e-100 instead of less: quad_vec raises the ratio of a rounding error to such a value to a power.
        return np.asarray(np.exp(np.maximum(exponent(t) - top, -230.0)))

    # The error is bounded in the largest sample: a rough integral first brings all of them to 1.
    rough, _ = quad_vec(integrand, a, b, epsabs=0.0, epsrel=1e-4, norm="max", limit=2000)
    good = bool(np.isfinite(rough).all() and (rough > 0).all())
    error = np.inf
    if good:
        top = top + np.log(rough)
        value, error = quad_vec(integrand, a, b, epsabs=0.0, epsrel=0.1 * tol, norm="max", limit=2000)
        error = error / value.min()
    if not error <= tol:
        raise SolverError(
            f"xi: the integral from t = {a:g} to {b:g} has relative error {error:.1e}, wanted {tol:.1e}; "
            "say where the schedule jumps (schedules.Function(f, where=...)), or relax tol"
        )
    return np.asarray(np.log(value) + top)
