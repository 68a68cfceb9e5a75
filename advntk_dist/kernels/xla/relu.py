"""One ReLU on pairs of pre-activations, forward and adjoint, in a form that near-identical images survive.

A pair with variances q_1, q_2 and NNGP K is carried as e = (q_1 + q_2) / 2 - K, half the mean squared distance of
the pre-activations, and as the rest m = NTK - K. Linear layers act on e and m as on K and the NTK, biases drop out
of both, and e of two images that differ little is computed without cancellation. With the norms n = sqrt(q),
s = n_1 n_2 and h = s - K = e - (n_1 - n_2)^2 / 2, the gap 1 - cos(angle) is h / s, and after the ReLU

    2 e' = e - h (1 - (1 - kappa_1) / gap),     2 (NTK' - K') = kappa_0 (m + K).

The factor 1/2 of the ReLU is left to the linear layer that follows. Adjoint: with y and z the adjoints of
s kappa_1 (up to sign, of e') and of kappa_0 NTK, and w = NTK / (pi s sin(angle)),

    adjoint of K  = kappa_0 (y + z) + w z  (of -e, the rest m kept),     adjoint of m = kappa_0 z,
    adjoint of q_1 = (y (kappa_0 - 1 + sin(angle) n_2 / (pi n_1)) + z kappa_0 + w z (n_1 - n_2 cos(angle)) / n_1) / 2.

Conventions: at coincident or opposite directions kappa_0 has a kink whose two slopes cancel in the symmetric limit,
so w = 0; where a variance vanishes the angle is pi / 2 (as in neural-tangents) and w = 0.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advntk_dist.kernels.xla.angle import kappa_0_deficit, kappa_1_excess
from advntk_dist.kernels.xla.checkpoint_buffer import copies

_ROUNDING = 8
"""Units of rounding that h = e - (n_1 - n_2)^2 / 2 can be off by, for parallel vectors of different norms."""


class Norms(NamedTuple):
    """Norms n = sqrt(q) of pre-activations and 1 / n (0 where n = 0)."""

    n: jax.Array
    inverse: jax.Array


class PairState(NamedTuple):
    """State of pairs before a ReLU: half squared distance e, rest m = NTK - NNGP."""

    e: jax.Array
    m: jax.Array


class Adjoint(NamedTuple):
    """Adjoints of the NNGP K (that is, of -e) and of m before a ReLU, and of the variances q_1, pair by pair."""

    k: jax.Array
    m: jax.Array
    q: jax.Array


def with_inverse(n: jax.Array) -> Norms:
    """Norms and their inverses."""
    return Norms(n, jnp.where(n > 0, 1.0 / jnp.where(n > 0, n, 1.0), 0.0))


class _Geometry(NamedTuple):
    s: jax.Array
    h: jax.Array
    """s - K, in [0, 2 s]."""
    inverse: jax.Array
    """1 / s, or 0."""
    obtuse: jax.Array | None
    """Whether the angle exceeds pi / 2; None where it cannot."""
    folded: jax.Array
    """min(h, 2 s - h): h of the angle folded into [0, pi / 2]."""
    gap: jax.Array
    """1 - cos of the folded angle."""
    root: jax.Array


def _geometry(e: jax.Array, left: Norms, right: Norms, *, signed: bool) -> _Geometry:
    eps = float(jnp.finfo(e.dtype).eps)
    difference, s, inverse = left.n - right.n, left.n * right.n, left.inverse * right.inverse
    h = e - 0.5 * difference * difference
    h = jnp.where(h > (_ROUNDING * eps) * jnp.abs(difference) * (left.n + right.n), h, 0.0)
    if signed:
        opposite = 2.0 * s - h
        folded = jnp.minimum(h, jnp.where(opposite > (2 * _ROUNDING * eps) * s, opposite, 0.0))
        obtuse = h > s
    else:
        folded, obtuse = h, None
    gap = jnp.minimum(folded * inverse, 1.0)
    return _Geometry(s, h, inverse, obtuse, folded, gap, jnp.sqrt(gap))


def _kappa_0(g: _Geometry) -> jax.Array:
    deficit = kappa_0_deficit(g.gap, g.root)
    return 1.0 - deficit if g.obtuse is None else jnp.where(g.obtuse, deficit, 1.0 - deficit)


def ntk_before(pairs: PairState, left: Norms, right: Norms) -> jax.Array:
    """The NTK m + K before a ReLU; exactly m where an image has no variance."""
    g = _geometry(pairs.e, left, right, signed=True)
    return pairs.m + g.s - g.h


def distance_after(e: jax.Array, left: Norms, right: Norms, *, signed: bool) -> jax.Array:
    """2 e' after the ReLU, shaped as e.

    Parameters
    ----------
    e
        Half squared distances before it.
    left, right
        Norms of the two sides, broadcastable to e.
    signed
        Whether cosines can be negative (not after a linear layer on top of a ReLU).
    """
    g = _geometry(e, left, right, signed=signed)
    bulge = g.folded * kappa_1_excess(g.gap, g.root)
    return e - bulge if g.obtuse is None else jnp.where(g.obtuse, e - g.h + g.s - bulge, e - bulge)


def rest_after(pairs: PairState, left: Norms, right: Norms, *, signed: bool) -> jax.Array:
    """kappa_0 NTK: the part of the NTK after the ReLU that the layers below it learn."""
    g = _geometry(pairs.e, left, right, signed=signed)
    return _kappa_0(g) * (pairs.m + g.s - g.h)


def after(pairs: PairState, left: Norms, right: Norms, *, signed: bool) -> PairState:
    """:func:`distance_after` and :func:`rest_after`, each in a loop of its own."""
    for_e, for_m = copies(pairs.e, 2)
    above = distance_after(for_e, left, right, signed=signed)
    return PairState(above, rest_after(PairState(for_m, pairs.m), left, right, signed=signed))


def product_after(e: jax.Array, left: Norms, right: Norms, *, signed: bool) -> jax.Array:
    """s kappa_1: twice the NNGP after the ReLU."""
    g = _geometry(e, left, right, signed=signed)
    bulge = g.folded * kappa_1_excess(g.gap, g.root)
    return g.s - g.h + bulge if g.obtuse is None else jnp.where(g.obtuse, bulge, g.s - g.h + bulge)


def adjoint(pairs: PairState, left: Norms, right: Norms, y: jax.Array, z: jax.Array, *, signed: bool) -> Adjoint:
    """Adjoints before a ReLU, given y, that of s kappa_1 (negated, of 2 e'), and z, that of kappa_0 NTK."""
    e_k, e_m, e_q = copies(pairs.e, 3)
    at_k = _slopes(PairState(e_k, pairs.m), left, right, signed=signed)
    at_q = _slopes(PairState(e_q, pairs.m), left, right, signed=signed)
    kappa_0 = _safe_kappa_0(_geometry(e_m, left, right, signed=signed))
    ratio = right.n * left.inverse
    shift = (left.n - right.n) * left.inverse + at_q.cosine_gap * ratio
    through_y = y * (at_q.kappa_0 - 1.0 + at_q.sine * ratio * (1 / np.pi))
    through_z = z * (at_q.kappa_0 + at_q.w * shift)
    return Adjoint(at_k.kappa_0 * (y + z) + at_k.w * z, kappa_0 * z, 0.5 * (through_y + through_z))


class _Slopes(NamedTuple):
    kappa_0: jax.Array
    sine: jax.Array
    w: jax.Array
    cosine_gap: jax.Array
    """1 - cos of the angle itself."""


def _safe_kappa_0(g: _Geometry) -> jax.Array:
    return jnp.where(g.inverse > 0, _kappa_0(g), 0.5)


def _slopes(pairs: PairState, left: Norms, right: Norms, *, signed: bool) -> _Slopes:
    g = _geometry(pairs.e, left, right, signed=signed)
    square = g.gap * (2.0 - g.gap)
    inverse_sine = jnp.where(square > 0, 1.0 / jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    w = (pairs.m + g.s - g.h) * g.inverse * inverse_sine * (1 / np.pi)
    return _Slopes(_safe_kappa_0(g), square * inverse_sine, w, g.h * g.inverse)
