"""ReLU MLPs: matrix products over the pixels around one elementwise function of the pairs.

A tile is one product (the inner products of all pairs of images), one loop over the pairs and, for the gradient,
a second loop and a second product. Where a whole set of right-hand images is combined with coefficients, pairs lie
with the right-hand image first, which is the faster order of both products for few left-hand images and many
right-hand ones; the loops then go over parts that stay in cache until they have met the coefficients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from advntk_dist.kernels.backend import KernelKind
from advntk_dist.kernels.xla.box import stored
from advntk_dist.kernels.xla.chain import Chain, Side

PART_PAIRS = {"cpu": 2**18}
"""Pairs of a part: a few arrays of them fit the last cache."""
PART_PAIRS_ELSEWHERE = 2**26

_State = TypeVar("_State")
_Rows = TypeVar("_Rows")
_Out = TypeVar("_Out")


class PreparedVectors(NamedTuple):
    """Images of one side of a tile: flat pixels (b, d), and what the layers need of them."""

    x: jax.Array
    side: Side


@dataclass(frozen=True)
class DenseTile:
    """MLP-x: Flatten, (Dense, ReLU) x (x - 1), Dense.

    Attributes
    ----------
    depth
        x, at least 2.
    W_std, b_std
        Standard deviations of weights and biases.
    """

    depth: int
    W_std: float
    b_std: float

    def prepare(self, x2: jax.Array) -> PreparedVectors:
        """Flat pixels, and the numbers of each image."""
        x = x2.reshape(x2.shape[0], -1)
        variance = self._per_pixel(x) * (x * x).sum(axis=1) + self.b_std**2
        return PreparedVectors(x, jax.tree.map(stored, self._chain.side(variance)))

    def tile(self, x1: jax.Array, prepared: PreparedVectors, kind: KernelKind) -> jax.Array:
        """Kernel values (b1, b2)."""
        left = self.prepare(x1)
        first = self._first(stored(left.x @ prepared.x.T), left.x)
        value = self._chain.ntk if kind == "ntk" else self._chain.nngp
        return value(first, left.side.down(), prepared.side.across())

    def tile_vjp(self, x1: jax.Array, prepared: PreparedVectors, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """NTK tile (b1, b2), and d sum(weight * tile) / d x1."""
        left = self.prepare(x1)
        first = self._first(stored(left.x @ prepared.x.T), left.x)
        sides = left.side.down(), prepared.side.across()
        k, variance = map(stored, self._chain.adjoint(first, weight, *sides))
        per_row = variance @ jnp.full(variance.shape[1], 2.0, variance.dtype)
        gradient = k @ prepared.x + per_row[:, None] * left.x
        return self._chain.ntk(first, *sides), (gradient * self._per_pixel(left.x)).reshape(x1.shape)

    def combine(self, x1: jax.Array, prepared: PreparedVectors, coefficients: jax.Array) -> tuple[jax.Array, jax.Array]:
        """tile @ coefficients in float64, (b1, k), for coefficients (b2, k); and the inner products (b2, b1)."""
        left = self.prepare(x1)
        products = stored(prepared.x @ left.x.T)
        across = left.side.across()

        def part(total: jax.Array, rows: tuple[jax.Array, Side, jax.Array]) -> tuple[jax.Array, None]:
            inner, side, c = rows
            tile = stored(self._chain.ntk(self._first(inner, left.x), side.down(), across))
            return total + c.T @ tile.astype(jnp.float64), None

        start = jnp.zeros((coefficients.shape[1], x1.shape[0]), jnp.float64)
        total, _ = _over_parts(part, start, (products, prepared.side, coefficients), x1.shape[0])
        return total.T, products

    def combine_vjp(
        self,
        x1: jax.Array,
        prepared: PreparedVectors,
        coefficients: jax.Array,
        cotangent: jax.Array,
        products: jax.Array | None = None,
    ) -> jax.Array:
        """d sum(cotangent * (tile @ coefficients)) / d x1, for a cotangent (b1, k); ``products`` as left behind."""
        left = self.prepare(x1)
        if products is None:
            products = stored(prepared.x @ left.x.T)
        across = left.side.across()

        def part(total: jax.Array, rows: tuple[jax.Array, Side, jax.Array]) -> tuple[jax.Array, jax.Array]:
            inner, side, c = rows
            weight = (c @ cotangent.T).astype(x1.dtype)
            first = self._first(inner, left.x)
            k, variance = map(stored, self._chain.adjoint(first, weight, across, side.down()))
            return total + jnp.ones(k.shape[0], k.dtype) @ variance, k

        start = jnp.zeros(x1.shape[0], x1.dtype)
        variance, k = _over_parts(part, start, (products, prepared.side, coefficients), x1.shape[0])
        gradient = k.reshape(products.shape).T @ prepared.x + (2.0 * variance)[:, None] * left.x
        return (gradient * self._per_pixel(left.x)).reshape(x1.shape)

    @cached_property
    def _chain(self) -> Chain:
        return Chain(self.depth - 1, self.W_std**2 / 2, self.b_std**2)

    def _first(self, products: jax.Array, x: jax.Array) -> jax.Array:
        """NNGP after the first layer."""
        return products * self._per_pixel(x) + self.b_std**2

    def _per_pixel(self, x: jax.Array) -> float:
        return self.W_std**2 / x.shape[1]


def _over_parts(
    part: Callable[[_State, _Rows], tuple[_State, _Out]], start: _State, arrays: _Rows, width: int
) -> tuple[_State, _Out]:
    """Scan over equal parts of the leading axis, of as many rows as fit; outputs are stacked part by part."""
    rows = jax.tree.leaves(arrays)[0].shape[0]
    number = parts(rows, width)
    if number == 1:
        return part(start, arrays)
    return jax.lax.scan(part, start, jax.tree.map(lambda a: a.reshape(number, -1, *a.shape[1:]), arrays))


def parts(rows: int, width: int) -> int:
    """The smallest number of equal parts of ``rows`` rows that fit the cache; 1 where no number near it divides."""
    most = max(1, PART_PAIRS.get(jax.default_backend(), PART_PAIRS_ELSEWHERE) // width)
    least = -(-rows // most)
    return next((n for n in range(least, 2 * least) if rows % n == 0), 1)
