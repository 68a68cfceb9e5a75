"""Divided differences of the exponential, stable for every argument on the negative half-axis.

phi_1(z) = (e^z - 1) / z and phi_2(z) = (phi_1(z) - 1) / z, with phi_1(0) = 1 and phi_2(0) = 1/2. They carry
the closed-form dynamics (phi_1), its time integral (phi_2), and, through the divided difference of phi_2,
the gradient in the effective training times.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.special import exprel, factorial

Array = NDArray[np.float64]

_SERIES_TERMS = 20
_SMALL = 1.0
"""Below this magnitude phi_2 and its derivative are summed as series: the quotients would cancel."""

_NODES, _WEIGHTS = leggauss(10)


def phi_1(z: Array) -> Array:
    """(e^z - 1) / z elementwise, 1 at z = 0."""
    return np.asarray(exprel(z), dtype=np.float64)


def phi_2(z: Array) -> Array:
    """(phi_1(z) - 1) / z elementwise, 1/2 at z = 0; equals the integral of tau phi_1(tau z) over [0, 1]."""
    small = np.abs(z) < _SMALL
    safe = np.where(small, -1.0, z)
    k = np.arange(_SERIES_TERMS)
    return np.where(small, _series(z, small, 1.0 / factorial(k + 2)), (phi_1(safe) - 1.0) / safe)


def phi_2_derivative(z: Array) -> Array:
    """d phi_2 / dz elementwise, 1/6 at z = 0."""
    small = np.abs(z) < _SMALL
    safe = np.where(small, -1.0, z)
    k = np.arange(1, _SERIES_TERMS + 1)
    return np.where(small, _series(z, small, k / factorial(k + 2)), (phi_1(safe) - 2.0 * phi_2(safe)) / safe)


def _series(z: Array, where: NDArray[np.bool_], coefficients: Array) -> Array:
    return np.asarray(np.polynomial.polynomial.polyval(np.where(where, z, 0.0), coefficients), dtype=np.float64)


def phi_2_difference(x: Array, y: Array) -> Array:
    """Divided difference (phi_2(x) - phi_2(y)) / (x - y), for x, y <= 0 broadcast against each other.

    It is the third divided difference of exp at 0, 0, x, y, and equals the integral over tau in [0, 1] of
    tau phi_1(tau x) (1 - tau) phi_1((1 - tau) y). Where x and y are close against their size, the quotient
    cancels and the mean of the derivative over the segment (Gauss-Legendre) takes its place.
    """
    x, y = np.broadcast_arrays(x, y)
    gap = x - y
    close = np.abs(gap) <= 0.1 * (1.0 + np.maximum(np.abs(x), np.abs(y)))
    quotient = (phi_2(x) - phi_2(y)) / np.where(close, 1.0, gap)
    at = y[close, None] + gap[close, None] * (0.5 * (_NODES + 1.0))
    result = quotient
    result[close] = phi_2_derivative(at) @ (0.5 * _WEIGHTS)
    return result
