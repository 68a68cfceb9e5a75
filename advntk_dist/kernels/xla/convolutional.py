"""Tiles of convolutional networks: blocks of left images against one right image at a time.

The pair axis is the block of left images, last and contiguous; what belongs to the right image is one number a
pixel. Sums over right images are then plain accumulation, and the working arrays of a block stay in cache. Where the
left images are fewer than a block and than the right ones, the sides change their parts, as pairs would not fill the
vector registers otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from advntk_dist.kernels.backend import KernelKind
from advntk_dist.kernels.xla.checkpoint_buffer import add_at, at, box_sum, empty_buffer, stored
from advntk_dist.kernels.xla.relu import Adjoint, Norms, PairState, adjoint, product_after, rest_after, with_inverse

_FEW_CHANNELS = 4

BLOCK_BYTES = {"cpu": 2**18}
"""Size of one array of a block of pairs: several of them fit the level-2 cache of a CPU core."""
BLOCK_BYTES_ELSEWHERE = 2**23
_FEWEST_ROWS = 16
_GROUP = 8
"""Right-hand images whose derivatives meet the coefficients in one product: sums of all outputs exceed the cache."""


class Stack(Protocol):
    """The convolutions and ReLUs of a network between the first convolution and the last ReLU.

    Pixels come first and pairs last: e and m are (H, W, pairs), norms are (relus, H, W, pairs) on the left and
    (relus, H, W, 1) on the right.
    """

    @property
    def relus(self) -> int:
        """ReLUs in all, the last one included."""
        ...

    @property
    def input_bias(self) -> float:
        """Variance of the bias of the first convolution."""
        ...

    @property
    def signed_end(self) -> bool:
        """Whether cosines before the last ReLU can be negative."""
        ...

    def variances(self, first: jax.Array) -> jax.Array:
        """Variances before every ReLU (relus, H, W, images), from those of the first convolution."""
        ...

    def distances(self, e: jax.Array, left: Norms, right: Norms) -> jax.Array:
        """e before the last ReLU, from e after the first convolution."""
        ...

    def forward(self, e: jax.Array, left: Norms, right: Norms) -> PairState:
        """Pairs before the last ReLU, from e after the first convolution (where m = 0)."""
        ...

    def record(self, e: jax.Array, left: Norms, right: Norms, buffer: PairState) -> PairState:
        """Pairs before every ReLU (relus, H, W, pairs), written over ``buffer``."""
        ...

    def shares(self, e: jax.Array) -> Any:
        """Zeros for the adjoints of the left variances, in the layout that :meth:`backward` adds to."""
        ...

    def in_order(self, q: Any) -> jax.Array:
        """The adjoints of the left variances as (relus, H, W, pairs)."""
        ...

    def backward(self, buffer: PairState, left: Norms, right: Norms, last: Adjoint, q: Any) -> tuple[jax.Array, Any]:
        """Adjoint of the NNGP after the first convolution, and ``q`` with the adjoints of the left variances added.

        ``last`` holds the adjoints before the last ReLU.
        """
        ...


class PreparedImages(NamedTuple):
    """Right-hand images of a tile: pixels (b, H, W, C), norms before every ReLU (b, relus, H, W).

    The norms take relus / C times the memory of the pixels.
    """

    x: jax.Array
    n: jax.Array


class _Block(NamedTuple):
    """Left-hand images, pairs last: pixels (H, W, C, p), norms (relus, H, W, p)."""

    x: jax.Array
    norms: Norms


@dataclass(frozen=True)
class ConvolutionalTile:
    """A first 3x3 convolution, a stack, a last ReLU, Flatten, Dense.

    Attributes
    ----------
    stack
        The layers between the first convolution and the last ReLU.
    W_std, b_std
        Standard deviations of the weights of all layers, and of the biases of the last layer.
    """

    stack: Stack
    W_std: float
    b_std: float

    def prepare(self, x2: jax.Array) -> PreparedImages:
        """Pixels and norms of the right-hand images (b2, H, W, C)."""
        variances = self._variances(jnp.moveaxis(x2, 0, -1))
        return PreparedImages(x2, jnp.sqrt(jnp.moveaxis(variances, -1, 0)))

    def tile(self, x1: jax.Array, prepared: PreparedImages, kind: KernelKind) -> jax.Array:
        """Kernel values (b1, b2)."""
        if _few(x1, prepared.x):
            return self._tile(prepared.x, self.prepare(x1), kind).T
        return self._tile(x1, prepared, kind)

    def tile_vjp(self, x1: jax.Array, prepared: PreparedImages, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """NTK tile (b1, b2), and d sum(weight * tile) / d x1."""
        if _few(x1, prepared.x):
            return self._few_vjp(x1, prepared.x, weight)
        blocks = (_blocks(x1, x1), _blocks(weight, x1))
        tile, gradient = jax.lax.map(lambda part: self._block_vjp(part[0], prepared, part[1].T), blocks)
        return _unblock(tile, x1.shape[0]), _unblock(gradient, x1.shape[0])

    def _tile(self, many: jax.Array, others: PreparedImages, kind: KernelKind) -> jax.Array:
        """Kernel values (many, others), in blocks of the first against one of the others at a time."""

        def block(images: jax.Array) -> jax.Array:
            left = self._block(images)
            return jax.lax.map(lambda right: self._values(left, right, kind), others).T

        return _unblock(jax.lax.map(block, _blocks(many, many)), many.shape[0])

    def combine_jacobian(
        self, x1: jax.Array, prepared: PreparedImages, coefficients: jax.Array, entries: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """tile @ coefficients in float64, (b1, k), and its derivatives in flat images or some pixels, (b1, k, pixels).

        The derivative of a pair is shared by all outputs.
        """
        tile, slopes = jax.lax.map(lambda block: self._block_jacobian(block, prepared, coefficients), _blocks(x1, x1))
        value = _unblock(tile, x1.shape[0]).astype(jnp.float64) @ coefficients
        flat = _unblock(slopes, x1.shape[0]).reshape(*value.shape, -1)
        return value, flat if entries is None else flat[..., entries]

    def _block_jacobian(
        self, images: jax.Array, prepared: PreparedImages, coefficients: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        left, c = self._block(images), coefficients.astype(images.dtype)
        group = next(size for size in range(_GROUP, 0, -1) if len(c) % size == 0)
        one, (nothing, no_slope) = jnp.ones((), c.dtype), self._nothing(left.x)

        def pair(buffer: PairState, right: PreparedImages) -> tuple[PairState, tuple[jax.Array, Any, jax.Array]]:
            value, slope, q, buffer = self._adjoint(left, _alone(right), one, nothing, buffer)
            return buffer, (value, q, slope)

        def add(
            state: tuple[tuple[Any, jax.Array], PairState], part: tuple[PreparedImages, jax.Array]
        ) -> tuple[tuple[tuple[Any, jax.Array], PairState], jax.Array]:
            totals, buffer = state
            buffer, (values, *own) = jax.lax.scan(pair, buffer, part[0])
            totals = jax.tree.map(lambda total, a: total + jnp.tensordot(part[1], a, (0, 0)), totals, tuple(own))
            return (totals, buffer), values

        grouped = jax.tree.map(lambda a: a.reshape(-1, group, *a.shape[1:]), (prepared, c))
        start = empty_buffer((nothing, no_slope), c.shape[1]), self._buffer(left.x)
        ((q, x), _), tile = jax.lax.scan(add, start, grouped)
        slopes = jax.vmap(lambda q, x, total: self._through_variances(left.x, x, self.stack.in_order(q), total))(
            q, x, c.sum(axis=0)
        )
        return tile.reshape(len(c), -1).T, jnp.moveaxis(slopes, 0, 1)

    def _block_vjp(self, images: jax.Array, prepared: PreparedImages, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        left = self._block(images)

        def against(
            state: tuple[Any, jax.Array, PairState], right: tuple[PreparedImages, jax.Array]
        ) -> tuple[tuple[Any, jax.Array, PairState], jax.Array]:
            q, x, buffer = state
            value, slope, q, buffer = self._adjoint(left, _alone(right[0]), right[1], q, buffer)
            return (q, x + slope, buffer), value

        start = (*self._nothing(left.x), self._buffer(left.x))
        (q, x, _), tile = jax.lax.scan(against, start, (prepared, weight))
        return tile.T, self._through_variances(left.x, x, self.stack.in_order(q), weight.sum(axis=0))

    def _few_vjp(self, x1: jax.Array, x2: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """:meth:`tile_vjp` in blocks of right images against one left image at a time."""
        few = self.prepare(x1)

        def block(
            total: tuple[Any, jax.Array], part: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[Any, jax.Array], jax.Array]:
            right = self._block(part[0])
            nothing, _ = self._nothing(right.x)

            def against(
                buffer: PairState, left: tuple[PreparedImages, jax.Array]
            ) -> tuple[PairState, tuple[jax.Array, jax.Array, Any]]:
                value, slope, q, buffer = self._adjoint(_alone(left[0]), right, left[1], nothing, buffer)
                return buffer, (value, _over_pairs(slope), jax.tree.map(_over_pairs, q))

            _, (tile, x, q) = jax.lax.scan(against, self._buffer(right.x), (few, part[1].T))
            return jax.tree.map(jnp.add, total, (q, x)), tile.T

        shares, _ = self._nothing(jnp.moveaxis(x1, 0, -1))
        start = jax.tree.map(lambda q: jnp.moveaxis(q, -1, 0), shares), jnp.zeros_like(x1)
        (q, x), tile = jax.lax.scan(block, start, (_blocks(x2, x2), _blocks(weight.T, x2)))
        pixels, slope, q = jax.tree.map(lambda a: jnp.moveaxis(a, 0, -1), (x1, x, q))
        gradient = self._through_variances(pixels, slope, self.stack.in_order(q), weight.sum(axis=1))
        return _unblock(tile, x2.shape[0]).T, gradient

    def _adjoint(
        self, left: _Block, right: _Block, weight: jax.Array, q: Any, buffer: PairState
    ) -> tuple[jax.Array, jax.Array, Any, PairState]:
        """NTK of pairs and the adjoint of the sum of weight * NTK; one of the sides may be a single image.

        Returns the values (p,), the adjoint of the left pixels through distances but for the factor of a tap
        (H, W, C, p), ``q`` with the adjoints of the left variances added, and the buffer, for the next pairs.
        """
        end = self.stack.relus - 1
        buffer = self.stack.record(self._first(left, right), left.norms, right.norms, buffer)
        last, ends = at(buffer, end), (at(left.norms, end), at(right.norms, end))
        y = jnp.broadcast_to(self._readout(left.x) * weight, last.e.shape)
        below = adjoint(last, *ends, y, y, signed=self.stack.signed_end)
        value = self._value(last, *ends, "ntk")
        k, q = self.stack.backward(buffer, left.norms, right.norms, below, q)
        return value, box_sum(k)[:, :, None] * (right.x - left.x), q, buffer

    def _nothing(self, x: jax.Array) -> tuple[Any, jax.Array]:
        """Zeros for the adjoints of variances and pixels (H, W, C, p)."""
        return self.stack.shares(x[:, :, 0]), jnp.zeros_like(x)

    def _buffer(self, x: jax.Array) -> PairState:
        return empty_buffer(PairState(x[:, :, 0], x[:, :, 0]), self.stack.relus)

    def _through_variances(self, pixels: jax.Array, x: jax.Array, q: jax.Array, weight: jax.Array) -> jax.Array:
        """Gradient (b, H, W, C) from the two adjoints of pixels (H, W, C, b) and the summed weights (b,)."""
        # The readout sums s kappa_1 itself, not the distances whose variances the adjoint counts in.
        q = add_at(q, self.stack.relus - 1, 0.5 * self._readout(pixels) * weight)
        _, pull_back = jax.vjp(self._variances, pixels)
        return jnp.moveaxis(self._per_tap(pixels) * x + pull_back(q)[0], -1, 0)

    def _values(self, left: _Block, right: PreparedImages, kind: KernelKind) -> jax.Array:
        one, end = _alone(right), self.stack.relus - 1
        e = self._first(left, one)
        if kind == "nngp":
            last = PairState(self.stack.distances(e, left.norms, one.norms), jnp.zeros_like(e))
        else:
            last = self.stack.forward(e, left.norms, one.norms)
        return self._value(last, at(left.norms, end), at(one.norms, end), kind)

    def _value(self, last: PairState, left: Norms, right: Norms, kind: KernelKind) -> jax.Array:
        signed = self.stack.signed_end
        total = product_after(last.e, left, right, signed=signed)
        if kind == "ntk":
            total = total + rest_after(last, left, right, signed=signed)
        return self._readout(last.e) * _over_pixels(total) + self.b_std**2

    def _first(self, left: _Block, right: _Block) -> jax.Array:
        """E after the first convolution, (H, W, p)."""
        difference = left.x - right.x
        return stored(box_sum(_over_channels(difference * difference)) * (0.5 * self._per_tap(left.x)))

    def _block(self, images: jax.Array) -> _Block:
        x = jnp.moveaxis(images, 0, -1)
        return _Block(x, with_inverse(jnp.sqrt(self._variances(x))))

    def _variances(self, x: jax.Array) -> jax.Array:
        """Variances (relus, H, W, b) of images (H, W, C, b)."""
        first = box_sum(_over_channels(x * x)) * self._per_tap(x) + self.stack.input_bias
        return self.stack.variances(first)

    def _per_tap(self, x: jax.Array) -> float:
        return self.W_std**2 / (9 * x.shape[2])

    def _readout(self, pixels: jax.Array) -> float:
        return self.W_std**2 / (2 * pixels.shape[0] * pixels.shape[1])


def _alone(one: PreparedImages) -> _Block:
    """One image, to be broadcast against a block: pixels (H, W, C), norms (relus, H, W)."""
    return _Block(one.x[..., None], with_inverse(one.n[..., None]))


def _few(x1: jax.Array, x2: jax.Array) -> bool:
    """Whether the right images are to be the block: there are more of them, and the left ones would not fill one."""
    return x1.shape[0] < min(x2.shape[0], _block_rows(x1))


def _blocks(x: jax.Array, images: jax.Array) -> jax.Array:
    """Rows of x (b, ...), one an image, in equal blocks (blocks, rows, ...), filled up with zeros.

    The arrays over the pairs of a block of images stay in cache.
    """
    rows = x.shape[0]
    blocks = -(-rows // _block_rows(images))
    height = -(-rows // blocks)
    padded = jnp.pad(x, ((0, blocks * height - rows),) + ((0, 0),) * (x.ndim - 1))
    return padded.reshape(blocks, height, *x.shape[1:])


def _block_rows(images: jax.Array) -> int:
    """Images (b, H, W, C) of a whole block."""
    row_bytes = images.shape[1] * images.shape[2] * images.dtype.itemsize
    return max(_FEWEST_ROWS, BLOCK_BYTES.get(jax.default_backend(), BLOCK_BYTES_ELSEWHERE) // row_bytes)


def _unblock(x: jax.Array, rows: int) -> jax.Array:
    return x.reshape(-1, *x.shape[2:])[:rows]


def _over_channels(x: jax.Array) -> jax.Array:
    """Sum over axis 2, written out so that it joins the loop that computes ``x``."""
    if x.shape[2] > _FEW_CHANNELS:
        return x.sum(axis=2)
    total = x[:, :, 0]
    for channel in range(1, x.shape[2]):
        total = total + x[:, :, channel]
    return total


def _over_pairs(x: jax.Array) -> jax.Array:
    """Sum over the last axis, as a matrix product."""
    return (stored(x).reshape(-1, x.shape[-1]) @ jnp.ones(x.shape[-1], x.dtype)).reshape(x.shape[:-1])


def _over_pixels(x: jax.Array) -> jax.Array:
    """Sum over the two leading axes, as matrix products.

    XLA fuses what feeds a reduction on a CPU into it, which slows both. Columns first, then the row of their sums: of a
    thousand terms in one sum, rounding would show.
    """
    height, width, pairs = x.shape
    columns = jnp.ones((1, height), x.dtype) @ stored(x).reshape(height, width * pairs)
    return (jnp.ones((1, width), x.dtype) @ columns.reshape(width, pairs))[0]
