"""Tiles of convolutional networks: blocks of left images against one right image at a time.

The pair axis is the block of left images, last and contiguous; what belongs to the right image is one number a
pixel. Sums over right images are then plain accumulation, and the working arrays of a block stay in cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
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


class _Sums(NamedTuple):
    """Sums over right-hand images: adjoints of the left variances as the stack lays them out, and of the pixels."""

    q: Any
    x: jax.Array


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

        def block(images: jax.Array) -> jax.Array:
            left = self._block(images)
            return jax.lax.map(lambda right: self._values(left, right, kind), prepared).T

        return _unblock(jax.lax.map(block, _blocks(x1, x1)), x1.shape[0])

    def tile_vjp(self, x1: jax.Array, prepared: PreparedImages, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """NTK tile (b1, b2), and d sum(weight * tile) / d x1."""
        blocks = (_blocks(x1, x1), _blocks(weight, x1))
        tile, gradient = jax.lax.map(lambda part: self._block_vjp(part[0], prepared, part[1].T), blocks)
        return _unblock(tile, x1.shape[0]), _unblock(gradient, x1.shape[0])

    def combine_jacobian(
        self, x1: jax.Array, prepared: PreparedImages, coefficients: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """tile @ coefficients in float64, (b1, k), and its derivatives in x1, (b1, k, H, W, C).

        The derivative of a pair is shared by all outputs.
        """
        tile, slopes = jax.lax.map(lambda block: self._block_jacobian(block, prepared, coefficients), _blocks(x1, x1))
        value = _unblock(tile, x1.shape[0]).astype(jnp.float64) @ coefficients
        return value, _unblock(slopes, x1.shape[0])

    def _block_vjp(self, images: jax.Array, prepared: PreparedImages, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        left = self._block(images)

        def against(
            state: tuple[_Sums, PairState], right: tuple[PreparedImages, jax.Array]
        ) -> tuple[tuple[_Sums, PairState], jax.Array]:
            sums, buffer = state
            value, sums, buffer = self._pair(left, *right, sums, buffer)
            return (sums, buffer), value

        start = self._no_sums(left), self._buffer(left)
        (sums, _), tile = jax.lax.scan(against, start, (prepared, weight))
        return tile.T, self._gradient(left, sums, weight.sum(axis=0))

    def _block_jacobian(
        self, images: jax.Array, prepared: PreparedImages, coefficients: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        left, c = self._block(images), coefficients.astype(images.dtype)
        group = next(size for size in range(_GROUP, 0, -1) if len(c) % size == 0)
        one = jnp.ones((), c.dtype)

        def pair(buffer: PairState, right: PreparedImages) -> tuple[PairState, tuple[jax.Array, _Sums]]:
            value, sums, buffer = self._pair(left, right, one, self._no_sums(left), buffer)
            return buffer, (value, sums)

        def add(
            state: tuple[_Sums, PairState], part: tuple[PreparedImages, jax.Array]
        ) -> tuple[tuple[_Sums, PairState], jax.Array]:
            totals, buffer = state
            buffer, (values, sums) = jax.lax.scan(pair, buffer, part[0])
            totals = jax.tree.map(lambda total, own: total + jnp.tensordot(part[1], own, (0, 0)), totals, sums)
            return (totals, buffer), values

        grouped = jax.tree.map(lambda a: a.reshape(-1, group, *a.shape[1:]), (prepared, c))
        start = empty_buffer(self._no_sums(left), c.shape[1]), self._buffer(left)
        (totals, _), tile = jax.lax.scan(add, start, grouped)
        slopes = jax.vmap(partial(self._gradient, left))(totals, c.sum(axis=0))
        return tile.reshape(len(c), -1).T, jnp.moveaxis(slopes, 0, 1)

    def _pair(
        self, left: _Block, right: PreparedImages, weight: jax.Array, sums: _Sums, buffer: PairState
    ) -> tuple[jax.Array, _Sums, PairState]:
        """NTK (p,) with one right-hand image, the sums with what weight * NTK adds to them, and the buffer."""
        end, there = self.stack.relus - 1, _broadcast(right.n)
        buffer = self.stack.record(self._first(left, right), left.norms, there, buffer)
        last, ends = at(buffer, end), (at(left.norms, end), at(there, end))
        y = jnp.broadcast_to(self._readout(left.x) * weight, last.e.shape)
        below = adjoint(last, *ends, y, y, signed=self.stack.signed_end)
        k, q = self.stack.backward(buffer, left.norms, there, below, sums.q)
        x = sums.x + box_sum(k)[:, :, None] * (right.x[..., None] - left.x)
        return self._value(last, *ends, "ntk"), _Sums(q, x), buffer

    def _gradient(self, left: _Block, sums: _Sums, weight: jax.Array) -> jax.Array:
        """The gradient (p, H, W, C) of the images of a block, from its sums and the sum of their weights."""
        end = self.stack.relus - 1
        # The readout sums s kappa_1 itself, not the distances whose variances the adjoint counts in.
        q = add_at(self.stack.in_order(sums.q), end, 0.5 * self._readout(left.x) * weight)
        _, through_variance = jax.vjp(self._variances, left.x)
        return jnp.moveaxis(self._per_tap(left.x) * sums.x + through_variance(q)[0], -1, 0)

    def _no_sums(self, left: _Block) -> _Sums:
        return _Sums(self.stack.shares(left.x[:, :, 0]), jnp.zeros_like(left.x))

    def _buffer(self, left: _Block) -> PairState:
        one_pair = left.x[:, :, 0]
        return empty_buffer(PairState(one_pair, one_pair), self.stack.relus)

    def _values(self, left: _Block, right: PreparedImages, kind: KernelKind) -> jax.Array:
        there, end = _broadcast(right.n), self.stack.relus - 1
        e = self._first(left, right)
        if kind == "nngp":
            last = PairState(self.stack.distances(e, left.norms, there), jnp.zeros_like(e))
        else:
            last = self.stack.forward(e, left.norms, there)
        return self._value(last, at(left.norms, end), at(there, end), kind)

    def _value(self, last: PairState, left: Norms, right: Norms, kind: KernelKind) -> jax.Array:
        signed = self.stack.signed_end
        total = product_after(last.e, left, right, signed=signed)
        if kind == "ntk":
            total = total + rest_after(last, left, right, signed=signed)
        return self._readout(last.e) * _over_pixels(total) + self.b_std**2

    def _first(self, left: _Block, right: PreparedImages) -> jax.Array:
        """E after the first convolution, (H, W, p)."""
        difference = left.x - right.x[..., None]
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


def _broadcast(n: jax.Array) -> Norms:
    return with_inverse(n[..., None])


def _blocks(x: jax.Array, images: jax.Array) -> jax.Array:
    """Rows of x (b, ...), one an image, in equal blocks (blocks, rows, ...), filled up with zeros.

    The arrays over the pairs of a block of images stay in cache.
    """
    rows, row_bytes = x.shape[0], images.shape[1] * images.shape[2] * images.dtype.itemsize
    most = max(_FEWEST_ROWS, BLOCK_BYTES.get(jax.default_backend(), BLOCK_BYTES_ELSEWHERE) // row_bytes)
    blocks = -(-rows // most)
    height = -(-rows // blocks)
    padded = jnp.pad(x, ((0, blocks * height - rows),) + ((0, 0),) * (x.ndim - 1))
    return padded.reshape(blocks, height, *x.shape[1:])


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


def _over_pixels(x: jax.Array) -> jax.Array:
    """Sum over the two leading axes, as matrix products.

    XLA fuses what feeds a reduction on a CPU into it, which slows both. Columns first, then the row of their sums: of a
    thousand terms in one sum, rounding would show.
    """
    height, width, pairs = x.shape
    columns = jnp.ones((1, height), x.dtype) @ stored(x).reshape(height, width * pairs)
    return (jnp.ones((1, width), x.dtype) @ columns.reshape(width, pairs))[0]
