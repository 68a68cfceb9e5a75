"""ReLU MLPs in plain JAX: one matrix product and one elementwise loop a tile, and the same backwards.

Forward, for each pair, with q the variances of its images and s = sqrt(q_1 q_2):

    K_0 = W^2 <x_1, x_2> / d + b^2,            T_0 = K_0
    K_l+1 = W^2 s kappa_1(K_l / s) / 2 + b^2,  T_l+1 = K_l+1 + W^2 kappa_0(K_l / s) T_l / 2

(K the NNGP, T the NTK; Jacot et al. 2018, Lee et al. 2019). The input gradient is the adjoint recursion by hand:
with aK, aT, as the adjoints of K, T and s, per layer from the last to the first

    aK_l = aK' kappa_0 / 2 + aT' T_l / (2 pi s sin),   as_l = aK' sin / (2 pi) - aT' T_l u / (2 pi s sin)

where aK', aT' are the adjoints after the layer times W^2. It is finite everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from advntk_dist.kernels.arccosine import Arccosine, arccosine, inverse_sine
from advntk_dist.kernels.backend import KernelKind

STRIP_PAIRS = 2**17
"""Pairs that go through the adjoint recursion at once, so that its arrays stay in cache."""


class PreparedMLP(NamedTuple):
    """Images of one side of a tile: flat pixels (b, d); sqrt(q) before each ReLU, and its inverse, (b, depth - 1)."""

    x: jax.Array
    scale: jax.Array
    inverse: jax.Array


@dataclass(frozen=True)
class MLPBackend:
    """MLP-x with ReLU: ``depth`` dense layers.

    Attributes
    ----------
    depth
        x of MLP-x, at least 2.
    W_std, b_std
        Standard deviations of weights and biases.
    """

    depth: int
    W_std: float
    b_std: float
    name: str = "xla"

    def prepare(self, x2: jax.Array) -> PreparedMLP:
        """Flat images and their scales."""
        flat = x2.reshape(x2.shape[0], -1)
        q = self.W_std**2 * (flat * flat).sum(axis=1) / flat.shape[1] + self.b_std**2
        variances = [q]
        for _ in range(self.depth - 2):
            variances.append(self.W_std**2 / 2 * variances[-1] + self.b_std**2)
        scale = jnp.sqrt(jnp.stack(variances, axis=1))
        # An image without variance (all zeros, and no bias) has no direction: 0 for 1/0 makes its kernel 0.
        return PreparedMLP(flat, scale, jnp.where(scale > 0, 1.0 / jnp.where(scale > 0, scale, 1.0), 0.0))

    def tile(self, x1: jax.Array, prepared: PreparedMLP, kind: KernelKind) -> jax.Array:
        """Kernel values (b1, b2)."""
        left = self.prepare(x1)
        last = self._layers(self._first(left, prepared), left, prepared)[-1]
        return last.ntk if kind == "ntk" else last.nngp

    def tile_vjp(self, x1: jax.Array, prepared: PreparedMLP, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """NTK tile (b1, b2), and d sum(weight * tile) / d x1."""
        left = self.prepare(x1)
        rows = x1.shape[0]

        def strip(block: tuple[jax.Array, PreparedMLP, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
            first, part, w = block
            return self._adjoint(self._layers(first, part, prepared), part, prepared, w)

        # The recursions hold a dozen arrays of pairs: strips of rows keep them in cache.
        height = _strip_height(rows, prepared.x.shape[0])
        blocks = (self._first(left, prepared), left, weight)
        cut = jax.tree.map(lambda a: a.reshape(rows // height, height, *a.shape[1:]), blocks)
        strips = jax.lax.map(strip, cut)
        tile, adj_first, adj_variance = jax.tree.map(lambda a: a.reshape(rows, *a.shape[2:]), strips)
        grad = adj_first @ prepared.x + 2 * adj_variance[:, None] * left.x
        return tile, (grad * (self.W_std**2 / left.x.shape[1])).reshape(x1.shape)

    def _first(self, left: PreparedMLP, right: PreparedMLP) -> jax.Array:
        """K_0, (b1, b2): the only matrix product of the forward pass."""
        return (left.x @ right.x.T) * (self.W_std**2 / left.x.shape[1]) + self.b_std**2

    def _layers(self, first: jax.Array, left: PreparedMLP, right: PreparedMLP) -> list[_Layer]:
        """State after each dense layer: ``depth`` of them."""
        half_slope, shift = self.W_std**2 / 2, self.b_std**2
        layers = [_Layer(first, first, None)]
        for depth in range(self.depth - 1):
            below = layers[-1]
            inverse = left.inverse[:, depth, None] * right.inverse[None, :, depth]
            cosines = arccosine(below.nngp * inverse, non_negative=depth > 0)
            scale = left.scale[:, depth, None] * (half_slope * right.scale[None, :, depth])
            nngp = cosines.kappa_1 * scale + shift
            layers.append(_Layer(nngp, nngp + cosines.kappa_0 * half_slope * below.ntk, cosines))
        return layers

    def _adjoint(
        self, layers: list[_Layer], left: PreparedMLP, right: PreparedMLP, weight: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """NTK and adjoint of K_0, both (b1, b2), and adjoint of the left variances before the first ReLU, (b1,)."""
        half_slope = self.W_std**2 / 2
        adj_ntk = adj_nngp = weight
        adj_variance = jnp.zeros(weight.shape[0], weight.dtype)
        for depth in range(len(layers) - 2, -1, -1):
            below, cosines = layers[depth], layers[depth + 1].cosines
            assert cosines is not None
            inverse = left.inverse[:, depth, None] * (half_slope / jnp.pi * right.inverse[None, :, depth])
            steep = adj_ntk * below.ntk * inverse_sine(cosines) * inverse
            adj_scale = adj_nngp * cosines.sine * (half_slope / jnp.pi) - steep * cosines.u
            # d s_l / d q_0 = (W^2 / 2)^l sqrt(q_2) / (2 sqrt(q_1)), with q_1 and q_2 those before ReLU l
            per_row = adj_scale @ right.scale[:, depth]
            adj_variance += per_row * left.inverse[:, depth] * (half_slope**depth / 2)
            half_kappa_0 = cosines.kappa_0 * half_slope
            adj_ntk = adj_ntk * half_kappa_0
            adj_nngp = adj_nngp * half_kappa_0 + steep + adj_ntk
        return layers[-1].ntk, adj_nngp, adj_variance


def _strip_height(rows: int, columns: int) -> int:
    """Rows of a strip: a divisor of ``rows`` that keeps an array of the strip at about STRIP_PAIRS pairs."""
    most = max(1, STRIP_PAIRS // columns)
    return max(h for h in range(1, rows + 1) if rows % h == 0 and h <= most)


class _Layer(NamedTuple):
    """NNGP and NTK after a dense layer, and the cosines of the ReLU before it."""

    nngp: jax.Array
    ntk: jax.Array
    cosines: Arccosine | None
