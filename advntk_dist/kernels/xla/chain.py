"""All layers of a ReLU MLP on pairs of images, forward and adjoint, as one elementwise function.

A pair with norms n_1, n_2 (roots of the variances) before ReLU l is carried as two numbers without a scale,

    gamma = 1 - NNGP / (n_1 n_2) = 1 - cos(angle),     tau = NTK / (n_1 n_2).

With phi = 1 - kappa_1 and x = gain n_1 n_2 / (n_1' n_2') (gain = W_std^2 / 2; primes mark the next ReLU),

    gamma' = x phi + delta^2,     tau' = x kappa_0 tau + 1 - gamma',

where delta^2 = (n_1' n_2' - gain n_1 n_2 - b_std^2) / (n_1' n_2') is what the bias adds to the angle of vectors of
different norms. It is the square of a difference of products p_1 g_2 - g_1 p_2 of numbers of one image, with
t = sqrt(gain) n + n', g = sqrt(b_std) / (2^(1/4) sqrt(t n')) and p = t g: nothing here cancels, so that images that
differ little keep their angle through all layers. The layers use nothing but products of numbers of one image.

Adjoint, of the sum of weight * NTK: with a that of tau, u that of -gamma at fixed tau and g = u + a the whole of it,

    a = x kappa_0 a',     u = x (kappa_0 g' + tau a' / (pi sin(angle))),

and at the end a' = g' = 1, x = gain n_1 n_2 weight. A ReLU is homogeneous, so by Euler's theorem the adjoint of the
left variance at fixed NNGP and NTK needs no derivative of its own: it is (x g' kappa_1 - u cos(angle)) / (2 n_1^2).

Conventions: at coincident or opposite images the two slopes of kappa_0 cancel, 1 / sin(angle) counts as 0; where a
norm vanishes the angle counts as pi / 2.

Rounding. Equal images are known by their keys: gamma = 0, whatever their inner product was rounded to, and kernels are
their closed form, exact to a few units of rounding. For others the first gamma is as wrong as a cosine from a matrix
product, by r say, and so an angle by up to arccos(1 - r) = sqrt(2 r), where it is next to 0 or pi. A ReLU passes on no
more of that than it was given, and multiplies the NTK below by 1 - angle / pi. So the NTK of two images that are nearly
equal (parallel, opposite) is wrong by at most

    relus arccos(1 - r) / pi    of the geometric mean of their NTKs with themselves.

For images of d numbers r is at most d / 2 + 32 units of rounding, in whatever order a product is summed; those of
common processors stay below 100: an NTK is off by thousandths in float32 then, by less than 1e-6 in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from advntk_dist.kernels.xla.angle import inverse_root, kappa_0_deficit, kappa_1_excess, pi_sine_inverse

_COINCIDENT = 16
"""Units of rounding that a cosine from a matrix product over the pixels is often off by: below, angles count as 0."""

_EQUAL = 2**14
"""Units of rounding that such a cosine is off by at most: two images with equal keys and a larger angle are different
images whose keys are equal by chance, one pair in 2^32."""


class Side(NamedTuple):
    """What the layers need of the images of one side of a tile; the leading axis is the image.

    Attributes
    ----------
    first_inverse
        1 / n before the first ReLU, (b,); 0 where n = 0.
    last
        n before the last ReLU, (b,).
    x, p, g
        Factors of x and of delta, (b, relus - 1).
    share
        gain^l / (2 n^2): of the adjoint of the variance before ReLU l in that of the first variance, (b, relus).
    key
        Equal for equal images, (b,) uint32; see :func:`advntk_dist.kernels.xla.dense.keys`.
    """

    first_inverse: jax.Array
    last: jax.Array
    x: jax.Array
    p: jax.Array
    g: jax.Array
    share: jax.Array
    key: jax.Array

    def across(self) -> Side:
        """The numbers as rows, (relus, 1, b) and (1, b): for images along the columns of a tile."""
        return Side(*(a[None] if a.ndim == 1 else a.T[:, None] for a in self))

    def down(self) -> Side:
        """The numbers as columns, (relus, b, 1) and (b, 1): for images along the rows of a tile."""
        return Side(*(a[:, None] if a.ndim == 1 else a.T[:, :, None] for a in self))


class _Layer(NamedTuple):
    """A pair at one ReLU, with what its adjoint uses again."""

    gamma: jax.Array
    tau: jax.Array
    phi: jax.Array
    kappa_0: jax.Array
    folded: jax.Array
    """gamma of the angle folded into [0, pi / 2]."""
    inverse_root: jax.Array
    """1 / sqrt(folded)."""


@dataclass(frozen=True)
class Chain:
    """The layers above the first of an MLP.

    Attributes
    ----------
    relus
        ReLUs in all, at least 1.
    gain
        W_std^2 / 2.
    bias
        b_std^2.
    """

    relus: int
    gain: float
    bias: float

    def side(self, variance: jax.Array, key: jax.Array) -> Side:
        """The numbers of images from their variances (b,) before the first ReLU, and their keys (b,)."""
        every = [variance]
        for _ in range(self.relus - 1):
            every.append(self.gain * every[-1] + self.bias)
        n = jnp.sqrt(jnp.stack(every, axis=1))
        below, above = n[:, :-1], n[:, 1:]
        inverse = _inverse(n)
        t = self.gain**0.5 * below + above
        # Without bias, x of an image is 1 in every layer, whatever its norm.
        x = jnp.where(above > 0, self.gain**0.5 * below * inverse[:, 1:], 1.0)
        g = (0.5 * self.bias) ** 0.25 * jnp.sqrt(_inverse(t * above))
        powers = jnp.asarray([0.5 * self.gain**depth for depth in range(self.relus)], n.dtype)
        return Side(inverse[:, 0], n[:, -1], x, t * g, g, powers * inverse * inverse, key)

    def ntk(self, first: jax.Array, one: Side, other: Side) -> jax.Array:
        """NTK of pairs from their NNGP before the first ReLU; the sides broadcast to its shape."""
        last = self._layers(first, one, other)[-1]
        return self._scale(one, other) * (1.0 - last.phi + last.kappa_0 * last.tau) + self.bias

    def nngp(self, first: jax.Array, one: Side, other: Side) -> jax.Array:
        """NNGP of the outputs, from the NNGP before the first ReLU."""
        return self._scale(one, other) * (1.0 - self._layers(first, one, other)[-1].phi) + self.bias

    def adjoint(self, first: jax.Array, weight: jax.Array, left: Side, right: Side) -> tuple[jax.Array, jax.Array]:
        """Adjoints of the sum of weight * NTK, pair by pair.

        The first is that of the NNGP before the first ReLU, the second that of the left variance there.
        """
        layers = self._layers(first, left, right)
        tau_x = g_x = self._scale(left, right) * weight
        variance = jnp.zeros_like(first)
        for depth in range(self.relus - 1, -1, -1):
            layer = layers[depth]
            steep = layer.tau * pi_sine_inverse(layer.folded, layer.inverse_root)
            a = layer.kappa_0 * tau_x
            u = layer.kappa_0 * g_x + steep * tau_x
            variance = variance + left.share[depth] * ((g_x - g_x * layer.phi) - (u - layer.gamma * u))
            g = u + a
            if depth:
                x = left.x[depth - 1] * right.x[depth - 1]
                tau_x, g_x = x * a, x * g
        inverse = left.first_inverse * right.first_inverse
        first_adjoint = g * inverse
        if self.bias == 0:
            first_adjoint = jnp.where(inverse > 0, first_adjoint, self._right_angles() * weight)
        return first_adjoint, variance

    def _layers(self, first: jax.Array, one: Side, other: Side) -> list[_Layer]:
        """Pairs at every ReLU."""
        eps = float(jnp.finfo(first.dtype).eps)
        rounding = _COINCIDENT * eps
        gamma = 1.0 - first * (one.first_inverse * other.first_inverse)
        gamma = jnp.where(gamma > jnp.where(one.key == other.key, _EQUAL * eps, rounding), gamma, 0.0)
        tau = 1.0 - gamma
        found = [_signed(gamma, tau, rounding)]
        for depth in range(self.relus - 1):
            below = found[-1]
            x = one.x[depth] * other.x[depth]
            delta = one.p[depth] * other.g[depth] - one.g[depth] * other.p[depth]
            gamma = x * below.phi + delta * delta
            tau = x * below.kappa_0 * below.tau + (1.0 - gamma)
            found.append(_acute(gamma, tau))
        return found

    def _scale(self, one: Side, other: Side) -> jax.Array:
        return self.gain * (one.last * other.last)

    def _right_angles(self) -> float:
        """Adjoint of the first NNGP if the angle is pi / 2 in every layer."""
        g = a = 1.0
        for _ in range(self.relus):
            g, a = 0.5 * self.gain * (g + a), 0.5 * self.gain * a
        return g


def _acute(gamma: jax.Array, tau: jax.Array) -> _Layer:
    """A ReLU where no cosine is negative (after another ReLU)."""
    inverse = inverse_root(gamma)
    root = gamma * inverse
    phi = gamma - gamma * kappa_1_excess(gamma, root)
    return _Layer(gamma, tau, phi, 1.0 - kappa_0_deficit(gamma, root), gamma, inverse)


def _signed(gamma: jax.Array, tau: jax.Array, rounding: float) -> _Layer:
    """The first ReLU: cosines of either sign."""
    folded = jnp.minimum(gamma, 2.0 - gamma)
    folded = jnp.where(folded > rounding, folded, 0.0)
    inverse = inverse_root(folded)
    root = folded * inverse
    deficit = kappa_0_deficit(folded, root)
    phi = jnp.minimum(gamma, 1.0) - folded * kappa_1_excess(folded, root)
    return _Layer(gamma, tau, phi, jnp.where(gamma > 1.0, deficit, 1.0 - deficit), folded, inverse)


def _inverse(a: jax.Array) -> jax.Array:
    return jnp.where(a > 0, 1.0 / jnp.where(a > 0, a, 1.0), 0.0)
