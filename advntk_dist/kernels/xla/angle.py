"""The arc-cosine kernels of ReLU as functions of the gap 1 - cos(angle).

Near coincidence the angle is sqrt(2 gap), so a cosine loses half its digits and the gap loses none. With

    kappa_0 = 1 - angle / pi,   kappa_1 = (sin(angle) + (pi - angle) cos(angle)) / pi    (Cho & Saul 2009)

1 - kappa_0 = sqrt(gap) p(gap) and 1 - kappa_1 = gap (1 - sqrt(gap) r(gap)) with p and r smooth on [0, 1]. In
float32 they are polynomials, in float64 the arc tangent.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

_DEGREE_P = 7
_DEGREE_R = 6
_DEGREE_S = 6


def _p(gap: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.arccos(1 - gap) / np.sqrt(gap) / np.pi


def _r(gap: NDArray[np.float64]) -> NDArray[np.float64]:
    angle = np.arccos(1 - gap)
    return (np.sin(angle) - angle * np.cos(angle)) / gap**1.5 / np.pi


def _s(gap: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (np.pi * np.sqrt(2 - gap))


def _interpolate(
    f: Callable[[NDArray[np.float64]], NDArray[np.float64]], degree: int, domain: tuple[float, float] = (0.0, 1.0)
) -> tuple[float, ...]:
    """Coefficients, lowest first, of the polynomial through the Chebyshev points of an interval."""
    series = np.polynomial.chebyshev.Chebyshev.interpolate(f, degree, domain=list(domain))
    power = series.convert(kind=np.polynomial.Polynomial, domain=[-1, 1], window=[-1, 1])
    return tuple(float(c) for c in power.coef)


_P, _R, _S = _interpolate(_p, _DEGREE_P), _interpolate(_r, _DEGREE_R), _interpolate(_s, _DEGREE_S)

_GUESS = np.int32(0x5F375A86)
_CORRECTION = _interpolate(lambda rest: (1 + rest) ** -0.5, 4, (-0.0676, 0.0692))
"""1 / sqrt(1 + rest), where a guess g of the inverse root of a gap leaves rest = gap g^2 - 1."""

_SMALLEST = {np.dtype(np.float32): 1e-13, np.dtype(np.float64): 1e-30}
"""Gaps up to this count as 0: their roots are a few units of rounding."""


def _horner(coefficients: tuple[float, ...], x: jax.Array) -> jax.Array:
    total = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = total * x + c
    return total


def kappa_0_deficit(gap: jax.Array, root: jax.Array) -> jax.Array:
    """1 - kappa_0, which is angle / pi, of gaps in [0, 1] and their square roots."""
    if gap.dtype == jnp.float64:
        return jnp.arctan2(root * jnp.sqrt(2.0 - gap), 1.0 - gap) * (1 / np.pi)
    return root * _horner(_P, gap)


def kappa_1_excess(gap: jax.Array, root: jax.Array) -> jax.Array:
    """q with 1 - kappa_1 = gap (1 - q), of gaps in [0, 1] and their square roots."""
    if gap.dtype == jnp.float64:
        sine = root * jnp.sqrt(2.0 - gap)
        bulge = (sine - jnp.arctan2(sine, 1.0 - gap) * (1.0 - gap)) * (1 / np.pi)
        return jnp.where(gap > 0, bulge / jnp.where(gap > 0, gap, 1.0), 0.0)
    return root * _horner(_R, gap)


def inverse_root(gap: jax.Array) -> jax.Array:
    """1 / sqrt(gap), bounded where the gap counts as 0.

    In float32 on a CPU it is computed from a guess that halves the logarithm in the bits, and a polynomial: XLA counts
    square roots as expensive and never computes one twice, so that it would cut a loop over pairs in two there.
    """
    if gap.dtype == jnp.float64 or jax.default_backend() != "cpu":
        return jax.lax.rsqrt(jnp.maximum(gap, _SMALLEST[gap.dtype]))
    bits = jax.lax.bitcast_convert_type(gap, jnp.int32)
    guess = jax.lax.bitcast_convert_type(_GUESS - jax.lax.shift_right_logical(bits, np.int32(1)), jnp.float32)
    return guess * _horner(_CORRECTION, gap * (guess * guess) - 1.0)


def pi_sine_inverse(gap: jax.Array, inverse: jax.Array) -> jax.Array:
    """1 / (pi sin(angle)) of gaps in [0, 1] and their inverse roots; 0 where the gap counts as 0."""
    smooth = jax.lax.rsqrt(2.0 - gap) * (1 / np.pi) if gap.dtype == jnp.float64 else _horner(_S, gap)
    return jnp.where(gap > _SMALLEST[gap.dtype], inverse * smooth, 0.0)
