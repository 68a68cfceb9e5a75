"""The arc-cosine kernels of ReLU (Cho & Saul 2009), elementwise, fast in float32 and exact in float64.

With cos(angle) = u: kappa_0(u) = (pi - angle) / pi and kappa_1(u) = (sin(angle) + (pi - angle) u) / pi.
kappa_1' = kappa_0, kappa_1 - u kappa_0 = sin(angle) / pi, and kappa_0' = 1 / (pi sin(angle)).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_COINCIDENT = 16
"""Cosines within this many units of rounding of 1 belong to the same direction: their angle is 0."""


def _angle_polynomial(degree: int = 8) -> tuple[float, ...]:
    """Coefficients of p with angle = sqrt(1 - u) p(u) on [0, 1], by interpolation at Chebyshev points."""
    chebyshev = np.polynomial.chebyshev.Chebyshev.interpolate(
        lambda u: np.arccos(u) / np.sqrt(1.0 - u), degree, domain=[0.0, 1.0]
    )
    return tuple(
        float(c) for c in chebyshev.convert(kind=np.polynomial.Polynomial, domain=[-1, 1], window=[-1, 1]).coef
    )


_ANGLE = _angle_polynomial()


class Arccosine(NamedTuple):
    """What one ReLU layer needs of the cosines u of its pairs; all arrays shaped as u."""

    u: jax.Array
    """Cosines, clipped to [-1, 1]."""
    kappa_0: jax.Array
    kappa_1: jax.Array
    square: jax.Array
    """Squared sine of the angle; 0 where the directions coincide."""
    sine: jax.Array


def arccosine(cosine: jax.Array, *, non_negative: bool) -> Arccosine:
    """kappa_0, kappa_1 and the sine of the angle.

    Parameters
    ----------
    cosine
        Cosines, off [-1, 1] by rounding at most.
    non_negative
        Promise that no cosine is negative (true after the first ReLU), which saves a reflection.
    """
    eps = float(jnp.finfo(cosine.dtype).eps)
    u = jnp.clip(cosine, -1.0, 1.0)
    size = u if non_negative else jnp.abs(u)
    gap = jnp.where(size > 1.0 - _COINCIDENT * eps, 0.0, 1.0 - size)
    root = jnp.sqrt(gap)
    square = gap * (1.0 + size)
    sine = jnp.sqrt(square)
    if cosine.dtype == jnp.float64:
        angle = jnp.arctan2(sine, size)
    else:
        polynomial = jnp.full_like(size, _ANGLE[-1])
        for coefficient in _ANGLE[-2::-1]:
            polynomial = polynomial * size + coefficient
        angle = root * polynomial
    opposite = jnp.pi - angle
    if not non_negative:
        opposite = jnp.where(u < 0, angle, opposite)
    return Arccosine(u, opposite * (1 / jnp.pi), (sine + opposite * u) * (1 / jnp.pi), square, sine)


def inverse_sine(cosines: Arccosine) -> jax.Array:
    """1 / sine, and 0 at coincident directions: there kappa_0 has a kink, whose two slopes cancel."""
    return jnp.where(cosines.square > 0, jax.lax.rsqrt(jnp.where(cosines.square > 0, cosines.square, 1.0)), 0.0)
