"""ReLU MLPs: matrix products over the pixels around one elementwise function of the pairs.

A tile is one product (the inner products of all pairs of images), one loop over the pairs and, for the gradient, a
second loop and a second product. Where a set of right-hand images is combined with coefficients, pairs lie with the
right-hand image first: the faster order of both products for few left-hand images and many right-hand ones.

The loops go over parts that stay in cache. On a CPU a part is computed in a branch, whose result XLA has to store
before it is used: otherwise its use would join the loop, where a conversion to float64 halves the width of all
vectors. The gradient loop has two results, but XLA would write two loops with everything in both: they travel as one
complex number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from advntk_dist.grid import spans
from advntk_dist.kernels.backend import KernelKind
from advntk_dist.kernels.xla.chain import Chain, Side
from advntk_dist.kernels.xla.checkpoint_buffer import stored

PART_PAIRS = {"cpu": 2**17}
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
        return PreparedVectors(x, jax.tree.map(stored, self._chain.side(variance, keys(x))))

    def tile(self, x1: jax.Array, prepared: PreparedVectors, kind: KernelKind) -> jax.Array:
        """Kernel values (b1, b2)."""
        left = self.prepare(x1)
        value = self._chain.ntk if kind == "ntk" else self._chain.nngp
        if x1.shape[0] < prepared.x.shape[0]:
            first = self._first(inner_products(prepared.x, left.x), left.x)
            return value(first, prepared.side.down(), left.side.across()).T
        first = self._first(inner_products(left.x, prepared.x), left.x)
        return value(first, left.side.down(), prepared.side.across())

    def tile_vjp(self, x1: jax.Array, prepared: PreparedVectors, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """NTK tile (b1, b2), and d sum(weight * tile) / d x1."""
        if x1.shape[0] < prepared.x.shape[0]:
            return self._few_vjp(x1, prepared, weight)
        left = self.prepare(x1)
        products = inner_products(left.x, prepared.x)
        across = prepared.side.across()

        def adjoints(rows: tuple[jax.Array, Side, jax.Array]) -> jax.Array:
            return jax.lax.complex(*self._chain.adjoint(self._first(rows[0], left.x), rows[2], rows[1].down(), across))

        def split(_: None, both: jax.Array, __: object) -> tuple[None, tuple[jax.Array, jax.Array]]:
            return None, (both.real, both.imag @ jnp.full(both.shape[1], 2.0, x1.dtype))

        _, (k, per_row) = _over_parts(adjoints, split, None, (products, left.side, weight))
        gradient = k.reshape(weight.shape) @ prepared.x + per_row.reshape(-1, 1) * left.x
        value = self._chain.ntk(self._first(products, left.x), left.side.down(), across)
        return value, (gradient * self._per_pixel(left.x)).reshape(x1.shape)

    def _few_vjp(self, x1: jax.Array, prepared: PreparedVectors, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """:meth:`tile_vjp` with the right-hand image first: both products are faster so for few left-hand images."""
        left = self.prepare(x1)
        products = inner_products(prepared.x, left.x)
        gradient = self._pull_back(left, prepared, products, weight.T, lambda w: w)
        value = self._chain.ntk(self._first(products, left.x), prepared.side.down(), left.side.across())
        return value.T, gradient.reshape(x1.shape)

    def _pull_back(
        self,
        left: PreparedVectors,
        prepared: PreparedVectors,
        products: jax.Array,
        rows: jax.Array,
        weight: Callable[[jax.Array], jax.Array],
    ) -> jax.Array:
        """Gradient in the left-hand pixels (b1, d); ``weight`` makes the weights of a part from those of ``rows``."""
        across, dtype = left.side.across(), left.x.dtype

        def adjoints(part: tuple[jax.Array, Side, jax.Array]) -> jax.Array:
            first = self._first(part[0], left.x)
            return jax.lax.complex(*self._chain.adjoint(first, weight(part[2]), across, part[1].down()))

        def split(total: jax.Array, both: jax.Array, _: object) -> tuple[jax.Array, jax.Array]:
            return total + jnp.full(both.shape[0], 2.0, dtype) @ both.imag, both.real

        per_row, k = _over_parts(adjoints, split, jnp.zeros(left.x.shape[0], dtype), (products, prepared.side, rows))
        gradient = k.reshape(products.shape).T @ prepared.x + per_row[:, None] * left.x
        return gradient * self._per_pixel(left.x)

    def combine(self, x1: jax.Array, prepared: PreparedVectors, coefficients: jax.Array) -> tuple[jax.Array, jax.Array]:
        """tile @ coefficients in float64, (b1, k), for coefficients (b2, k); and the inner products (b2, b1)."""
        left = self.prepare(x1)
        products = inner_products(prepared.x, left.x)
        across = left.side.across()

        def values(rows: tuple[jax.Array, Side, jax.Array]) -> jax.Array:
            return self._chain.ntk(self._first(rows[0], left.x), rows[1].down(), across)

        def add(total: jax.Array, tile: jax.Array, rows: tuple[jax.Array, Side, jax.Array]) -> tuple[jax.Array, None]:
            return total + rows[2].T @ tile.astype(jnp.float64), None

        start = jnp.zeros((coefficients.shape[1], x1.shape[0]), jnp.float64)
        total, _ = _over_parts(values, add, start, (products, prepared.side, coefficients))
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
            products = inner_products(prepared.x, left.x)
        # In the dtype of the images: for the reason above, a product in float64 would have to be stored first.
        c, u = coefficients.astype(x1.dtype), cotangent.astype(x1.dtype).T
        return self._pull_back(left, prepared, products, c, lambda part: part @ u).reshape(x1.shape)

    def combine_jacobian(
        self, x1: jax.Array, prepared: PreparedVectors, coefficients: jax.Array, entries: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """tile @ coefficients in float64, (b1, k), and its derivatives in flat images or some pixels, (b1, k, pixels).

        The layers are differentiated once a pair; each output adds one product over the pixels.
        """
        left = self.prepare(x1)
        own, others = (a if entries is None else a[:, entries] for a in (left.x, prepared.x))
        value, products = self.combine(x1, prepared, coefficients)
        across, c = left.side.across(), coefficients.astype(x1.dtype)

        def adjoints(rows: tuple[jax.Array, Side, jax.Array, jax.Array]) -> jax.Array:
            first = self._first(rows[0], left.x)
            return jax.lax.complex(*self._chain.adjoint(first, jnp.ones_like(first), across, rows[1].down()))

        def add(
            total: tuple[jax.Array, jax.Array], both: jax.Array, rows: tuple[jax.Array, Side, jax.Array, jax.Array]
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            weighted = (both.real.T[:, None] * rows[2].T).reshape(-1, both.shape[0])
            return (total[0] + stored(weighted) @ rows[3], total[1] + 2.0 * (both.imag.T @ rows[2])), None

        shape = x1.shape[0], coefficients.shape[1]
        start = jnp.zeros((shape[0] * shape[1], own.shape[1]), x1.dtype), jnp.zeros(shape, x1.dtype)
        (through_pairs, per_row), _ = _over_parts(adjoints, add, start, (products, prepared.side, c, others))
        gradient = through_pairs.reshape(*shape, -1) + per_row[:, :, None] * own[:, None]
        return value, gradient * self._per_pixel(left.x)

    @cached_property
    def _chain(self) -> Chain:
        return Chain(self.depth - 1, self.W_std**2 / 2, self.b_std**2)

    def _first(self, products: jax.Array, x: jax.Array) -> jax.Array:
        """NNGP after the first layer."""
        return products * self._per_pixel(x) + self.b_std**2

    def _per_pixel(self, x: jax.Array) -> float:
        return self.W_std**2 / x.shape[1]


def inner_products(one: jax.Array, other: jax.Array) -> jax.Array:
    """Inner products (a, b) of the rows of two matrices (a, d) and (b, d)."""
    return stored(one @ other.T)


def _over_parts(
    make: Callable[[_Rows], jax.Array],
    use: Callable[[_State, jax.Array, _Rows], tuple[_State, _Out]],
    start: _State,
    arrays: _Rows,
) -> tuple[_State, _Out]:
    """Scan over equal parts of the leading axis of all arrays; outputs are stacked part by part.

    ``make`` computes the pairs of a part, ``use`` does what must not join that loop.
    """
    rows, width = jax.tree.leaves(arrays)[0].shape
    number = parts(rows, width)
    height = rows // number

    def rows_at(step: jax.Array, everything: _Rows) -> _Rows:
        return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, step * height, height), everything)

    def part(total: _State, step: jax.Array) -> tuple[_State, _Out]:
        def computed(step: jax.Array, everything: _Rows) -> jax.Array:
            return make(rows_at(step, everything))

        def never(step: jax.Array, everything: _Rows) -> jax.Array:
            return jnp.zeros_like(jax.eval_shape(computed, step, everything))

        on_cpu = jax.default_backend() == "cpu"
        pairs = jax.lax.cond(step >= 0, computed, never, step, arrays) if on_cpu else computed(step, arrays)
        return use(total, pairs, rows_at(step, arrays))

    return jax.lax.scan(part, start, jnp.arange(number, dtype=jnp.int32))


def parts(rows: int, width: int) -> int:
    """The smallest number of equal parts of ``rows`` rows that fit the cache; 1 where no number near it divides.

    At least 2 on a CPU, if possible: a loop of one step is none.
    """
    most = max(1, PART_PAIRS.get(jax.default_backend(), PART_PAIRS_ELSEWHERE) // width)
    least = max(2 if jax.default_backend() == "cpu" else 1, -(-rows // most))
    return next((n for n in range(least, 2 * least) if rows % n == 0), 1)


_SPREAD = np.uint32(0x7FEB352D)  # a multiplier of the integer hash "lowbias32" (C. Wellons, Hash Prospector, 2018)
_PARTS = 4


def keys(x: jax.Array) -> jax.Array:
    """A 32-bit hash of the numbers of each row of x (b, d), float32 or float64: (b,) uint32, exact on every device.

    Equal images are recognised by it, whatever a matrix product rounds to: rows whose numbers are equal have equal
    keys, others do with a chance of about 2^-32. Numbers are mixed, multiplied with odd numbers of their own that were
    drawn at random, and added.
    """
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, jnp.zeros_like(x), x), jnp.uint32)  # -0 is equal to 0
    bits = bits.reshape(x.shape[0], -1)
    width = -(-bits.shape[1] // _PARTS)
    odd = np.random.default_rng(0).integers(0, 2**32, (_PARTS, width), dtype=np.uint32) | np.uint32(1)
    total = jnp.zeros((x.shape[0], width), jnp.uint32)
    # Added in parts first: XLA sums along rows number by number, and this loop in whole vectors.
    for place, part in enumerate(spans(bits.shape[1], width)):
        one = bits[:, part]
        mixed = (one ^ (one >> 16)) * _SPREAD
        mixed = (mixed ^ (mixed >> 15)) * odd[place, : one.shape[1]]
        total = total + jnp.pad(mixed, ((0, 0), (0, width - one.shape[1])))
    return stored(total).sum(axis=1, dtype=jnp.uint32)
