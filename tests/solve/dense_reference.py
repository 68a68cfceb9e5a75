"""The naive dense reference of tests and benchmarks (eigendecompositions in float64, O(n^3)); a counter of passes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from advntk_dist.solve.phi import phi_1

Array = NDArray[np.float64]


class Counted:
    """A matrix that counts the products taken with it."""

    def __init__(self, theta: Array) -> None:
        self.theta, self.passes = theta, 0

    def __call__(self, v: Array) -> Array:
        self.passes += 1
        return np.asarray(self.theta @ v)


def relative(value: Array, reference: Array) -> float:
    """Difference of two arrays in the Frobenius norm, relative to the second."""
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def dense_coefficients(theta: Array, y: Array, varpi: Array, t: float) -> Array:
    """c(t) = t D^1/2 phi_1(-t S) D^1/2 Y, (n, k); the minimum-norm solution on the support of D at t = inf."""
    sqrt_d = np.sqrt(varpi)
    values, vectors = eigh(sqrt_d[:, None] * theta * sqrt_d)
    values = np.maximum(values, 0.0)
    if np.isinf(t):
        keep = values > values[-1] * len(values) * np.finfo(np.float64).eps
        factor = np.where(keep, 1.0 / np.where(keep, values, 1.0), 0.0)
    else:
        factor = t * phi_1(-t * values)
    return np.asarray(sqrt_d[:, None] * (vectors @ (factor[:, None] * (vectors.T @ (sqrt_d[:, None] * y)))))


def dense_gradient(theta: Array, y: Array, varpi: Array, v: Array) -> Array:
    """Gradient in varpi of <v, Theta-free coefficients>: the integral of sum_c lambda_ic r_ic, for varpi > 0.

    With r = D^-1/2 exp(-tau S) D^1/2 Y the integral is a divided difference of exp in the eigenbasis of S.
    """
    sqrt_d = np.sqrt(varpi)
    values, vectors = eigh(sqrt_d[:, None] * theta * sqrt_d)
    left = vectors.T @ (sqrt_d[:, None] * v)
    right = vectors.T @ (sqrt_d[:, None] * y)
    # exp[-a, -b] = e^-min(a, b) phi_1(-|a - b|): close eigenvalues do not cancel, large ones do not overflow.
    a, b = values[:, None], values[None, :]
    difference = np.exp(-np.minimum(a, b)) * phi_1(-np.abs(a - b))
    middle = difference * (left @ right.T)
    return np.asarray(np.einsum("ia,ab,ib->i", vectors, middle, vectors) / varpi)
