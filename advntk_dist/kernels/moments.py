"""Gaussian moments of the activations, all in closed form.

For u ~ N(0, K): V(K) = E[phi(u)^2], its slope V'(K), A(K) = E[phi'(u)^2], and its slope A'(K). They follow from
E[Phi(u)^2] = 1/4 + asin(K / (1 + K)) / (2 pi), E[exp(-a u^2)] = (1 + 2 a K)^-1/2 and Stein's E[u g(u)] = K E[g'(u)].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.spec import Activation

Array = NDArray[Any]

SIGMOID_SCALE = 2.4020563531719796
"""neural-tangents' Sigmoid_like is erf(u / this) / 2 + 1/2."""


@dataclass(frozen=True)
class Moments:
    """Moments of one activation as functions of the variance K >= 0, elementwise, in the dtype of K.

    Attributes
    ----------
    second, second_slope
        V(K) = E[phi(u)^2] and dV / dK.
    slope, slope_slope
        A(K) = E[phi'(u)^2] and dA / dK.
    """

    second: Callable[[Array], Array]
    second_slope: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    slope_slope: Callable[[Array], Array]


def _relu() -> Moments:
    return Moments(lambda k: k / 2, lambda k: 0 * k + 0.5, lambda k: 0 * k + 0.5, lambda k: 0 * k)


def _erf(a: float, b: float, c: float) -> Moments:
    """Moments of a erf(b u) + c."""
    a2, b2 = a * a, b * b

    def second(k: Array) -> Array:
        return np.asarray(a2 * 2 / np.pi * np.arcsin(2 * b2 * k / (1 + 2 * b2 * k)) + c * c)

    def second_slope(k: Array) -> Array:
        return np.asarray(a2 * b2 * 4 / np.pi / ((1 + 2 * b2 * k) * np.sqrt(1 + 4 * b2 * k)))

    def slope(k: Array) -> Array:
        return np.asarray(a2 * b2 * 4 / np.pi / np.sqrt(1 + 4 * b2 * k))

    def slope_slope(k: Array) -> Array:
        return np.asarray(-a2 * b2 * b2 * 8 / np.pi / (1 + 4 * b2 * k) ** 1.5)

    return Moments(second, second_slope, slope, slope_slope)


def _gelu() -> Moments:
    """Moments of u Phi(u)."""
    pi = float(np.pi)

    def parts(k: Array) -> tuple[Array, Array, Array]:
        """E[Phi^2] + 2 E[u Phi phi], r = 1 / ((1 + K) sqrt(1 + 2K)) and dr / dK."""
        r = 1 / ((1 + k) * np.sqrt(1 + 2 * k))
        return (
            0.25 + np.arcsin(k / (1 + k)) / (2 * pi) + k * r / pi,
            r,
            -r * (1 / (1 + k) + 1 / (1 + 2 * k)),
        )

    def second(k: Array) -> Array:
        return np.asarray(k * parts(k)[0])

    def second_slope(k: Array) -> Array:
        inner, r, dr = parts(k)
        return np.asarray(inner + k * (1.5 * r + k * dr) / pi)

    def slope(k: Array) -> Array:
        return np.asarray(parts(k)[0] + k / (2 * pi * (1 + 2 * k) ** 1.5))

    def slope_slope(k: Array) -> Array:
        _, r, dr = parts(k)
        return np.asarray((1.5 * r + k * dr) / pi + (1 - k) / (2 * pi * (1 + 2 * k) ** 2.5))

    return Moments(second, second_slope, slope, slope_slope)


MOMENTS: dict[Activation, Moments] = {
    "relu": _relu(),
    "gelu": _gelu(),
    "erf": _erf(1.0, 1.0, 0.0),
    "sigmoid": _erf(0.5, 1 / SIGMOID_SCALE, 0.5),
}
