"""One ReLU on pairs, forward and adjoint, all results from one pass over the geometry.

The mathematics and its conventions are those of :mod:`advntk_dist.kernels.xla.relu`, which computes each result in
a loop of its own because a CPU is bound by its cache. On a GPU the intermediate values stay in registers, so here
they are shared; and one division takes the place of reading the inverses of the norms.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advntk_dist.kernels.xla.angle import kappa_0_deficit, kappa_1_excess
from advntk_dist.kernels.xla.relu import Adjoint, Pairs

_ROUNDING = 8
"""Units of rounding that h = e - (n_1 - n_2)^2 / 2 can be off by, for parallel vectors of different norms."""


class Geometry(NamedTuple):
    """What both arc-cosine kernels of a pair are made of; see :mod:`advntk_dist.kernels.xla.relu`."""

    s: jax.Array
    """n_1 n_2."""
    inverse: jax.Array
    """1 / s, or 0."""
    h: jax.Array
    """s - K, in [0, 2 s]."""
    obtuse: jax.Array | None
    """Whether the angle exceeds pi / 2; None where it cannot."""
    folded: jax.Array
    """min(h, 2 s - h)."""
    gap: jax.Array
    """1 - cos of the angle folded into [0, pi / 2]."""
    root: jax.Array


class Above(NamedTuple):
    """What a ReLU gives, without its factor 1/2."""

    distance: jax.Array
    """2 e'."""
    product: jax.Array
    """s kappa_1, twice the NNGP."""
    rest: jax.Array
    """kappa_0 NTK."""


def inverse_of(a: jax.Array) -> jax.Array:
    """1 / a, and 0 where a = 0."""
    positive = a > 0
    return jnp.where(positive, 1.0 / jnp.where(positive, a, 1.0), 0.0)


def geometry(e: jax.Array, n_1: jax.Array, n_2: jax.Array, *, signed: bool) -> Geometry:
    """Geometry of pairs with half squared distances e and norms n_1, n_2, broadcastable to e.

    ``signed`` says whether cosines can be negative (not after a linear layer on top of a ReLU).
    """
    eps = float(jnp.finfo(e.dtype).eps)
    difference, s = n_1 - n_2, n_1 * n_2
    inverse = inverse_of(s)
    h = e - 0.5 * difference * difference
    h = jnp.where(h > (_ROUNDING * eps) * jnp.abs(difference) * (n_1 + n_2), h, 0.0)
    obtuse, folded = None, h
    if signed:
        opposite = 2.0 * s - h
        obtuse = h > s
        folded = jnp.minimum(h, jnp.where(opposite > (2 * _ROUNDING * eps) * s, opposite, 0.0))
    gap = jnp.minimum(folded * inverse, 1.0)
    return Geometry(s, inverse, h, obtuse, folded, gap, jnp.sqrt(gap))


def relu(g: Geometry, pairs: Pairs) -> Above:
    """The pairs after a ReLU."""
    bulge = g.folded * kappa_1_excess(g.gap, g.root)
    nngp = g.s - g.h
    distance, product = pairs.e - bulge, nngp + bulge
    if g.obtuse is not None:
        distance = jnp.where(g.obtuse, pairs.e + nngp - bulge, distance)
        product = jnp.where(g.obtuse, bulge, product)
    return Above(distance, product, _kappa_0(g) * (pairs.m + nngp))


def adjoint(g: Geometry, pairs: Pairs, n_1: jax.Array, n_2: jax.Array, y: jax.Array, z: jax.Array) -> Adjoint:
    """Adjoints before a ReLU, given y, that of s kappa_1 (negated, of 2 e'), and z, that of kappa_0 NTK."""
    kappa_0 = jnp.where(g.inverse > 0, _kappa_0(g), 0.5)
    square = g.gap * (2.0 - g.gap)
    open_angle = square > 0
    inverse_sine = jnp.where(open_angle, jax.lax.rsqrt(jnp.where(open_angle, square, 1.0)), 0.0)
    w = (pairs.m + g.s - g.h) * g.inverse * inverse_sine * (1 / np.pi)
    inverse_1 = inverse_of(n_1)
    ratio = n_2 * inverse_1
    shift = (n_1 - n_2) * inverse_1 + g.h * g.inverse * ratio
    through_y = y * (kappa_0 - 1.0 + square * inverse_sine * ratio * (1 / np.pi))
    through_z = z * (kappa_0 + w * shift)
    return Adjoint(kappa_0 * (y + z) + w * z, kappa_0 * z, 0.5 * (through_y + through_z))


def _kappa_0(g: Geometry) -> jax.Array:
    deficit = kappa_0_deficit(g.gap, g.root)
    return 1.0 - deficit if g.obtuse is None else jnp.where(g.obtuse, deficit, 1.0 - deficit)
