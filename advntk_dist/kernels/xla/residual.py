"""ResNet-18 and -34 without pooling: pre-activation basic blocks, block after block in one loop.

A block maps a stream x to y = conv(ReLU(conv(ReLU(x)))) + shortcut(x). The shortcut is a 3x3 convolution in the
first block of a stage (a = W_std^2 / 9, b = 0 below) and the identity in the others (a = 0, b = 1):

    e_y = box(gain e' + a e_x) + b e_x,    m_y = box(gain m' + a (m_x + K_x)) + b m_x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advntk_dist.kernels.xla.checkpoint_buffer import (
    add_at,
    at,
    border,
    box_sum,
    empty_buffer,
    inner_sum,
    loop,
    put,
    stored,
    through,
)
from advntk_dist.kernels.xla.relu import Adjoint, Norms, PairState, adjoint, after, distance_after, ntk_before
from advntk_dist.spec import RESNET_STAGES


class _Shares(NamedTuple):
    """Adjoints of the variances of the streams (blocks + 1, ...) and inside the blocks (blocks, ...).

    Two arrays: XLA copies one that is written twice in a step.
    """

    stream: jax.Array
    middle: jax.Array


_Adjoints = tuple[PairState, _Shares, PairState]


@dataclass(frozen=True)
class ResidualStack:
    """The blocks of a ResNet; see :class:`advntk_dist.kernels.xla.convolutional.Stack` for the methods.

    Attributes
    ----------
    depth
        18 or 34.
    gain
        W_std^2 / 18: of a 3x3 sum after a ReLU.
    """

    depth: int
    gain: float

    @property
    def blocks(self) -> int:
        """Basic blocks in all."""
        return sum(RESNET_STAGES[self.depth])

    @property
    def relus(self) -> int:
        """Two a block and the last one."""
        return 2 * self.blocks + 1

    @property
    def input_bias(self) -> float:
        """Only the last layer has a bias."""
        return 0.0

    @property
    def signed_end(self) -> bool:
        """Shortcuts carry negative kernels to the end."""
        return True

    def variances(self, first: jax.Array) -> jax.Array:
        """Variances before every ReLU."""

        def block(x: jax.Array, shortcut: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            middle = self.gain * box_sum(x)
            y = box_sum(self.gain * middle + shortcut[0] * x) + shortcut[1] * x
            return y, jnp.stack([x, middle])

        last, every = jax.lax.scan(block, first, self._shortcuts(first.dtype))
        return jnp.concatenate([every.reshape(-1, *first.shape), last[None]])

    def distances(self, e: jax.Array, left: Norms, right: Norms) -> jax.Array:
        """Half squared distances before the last ReLU."""
        convolution, identity = self._shortcuts(e.dtype)

        def block(i: jax.Array, x: jax.Array) -> jax.Array:
            inner = border(distance_after(x, at(left, 2 * i), at(right, 2 * i), signed=True))
            middle = self.gain * inner_sum(stored(inner))
            outer = distance_after(middle, at(left, 2 * i + 1), at(right, 2 * i + 1), signed=False)
            return box_sum(self.gain * outer + convolution[i] * x) + identity[i] * x

        return loop(0, self.blocks, block, e)

    def forward(self, e: jax.Array, left: Norms, right: Norms) -> PairState:
        """Pairs before the last ReLU."""

        def block(i: jax.Array, state: tuple[PairState, PairState]) -> tuple[PairState, PairState]:
            x, scratch = state
            middle, scratch = through(scratch, i % 2, self._inner(x, at(left, 2 * i), at(right, 2 * i)))
            return self._outer(i, x, middle, left, right), scratch

        start = PairState(e, jnp.zeros_like(e))
        return loop(0, self.blocks, block, (start, empty_buffer(start, 2)))[0]

    def record(self, e: jax.Array, left: Norms, right: Norms, buffer: PairState) -> PairState:
        """Pairs before every ReLU."""

        def block(i: jax.Array, state: tuple[PairState, PairState]) -> tuple[PairState, PairState]:
            x, kept = state
            kept = put(kept, 2 * i, x)
            middle, kept = through(kept, 2 * i + 1, self._inner(x, at(left, 2 * i), at(right, 2 * i)))
            return self._outer(i, x, middle, left, right), kept

        last, buffer = loop(0, self.blocks, block, (PairState(e, jnp.zeros_like(e)), buffer))
        return put(buffer, 2 * self.blocks, last)

    def shares(self, e: jax.Array) -> _Shares:
        """Zeros for the adjoints of the left variances."""
        return _Shares(*(jnp.zeros((places, *e.shape), e.dtype) for places in (self.blocks + 1, self.blocks)))

    def in_order(self, q: _Shares) -> jax.Array:
        """The adjoints of the left variances, ReLU by ReLU."""
        pairs = jnp.stack([q.stream[:-1], q.middle], axis=1)
        return jnp.concatenate([pairs.reshape(-1, *pairs.shape[2:]), q.stream[-1:]])

    def backward(
        self, buffer: PairState, left: Norms, right: Norms, last: Adjoint, q: _Shares
    ) -> tuple[jax.Array, _Shares]:
        """Adjoint of the NNGP after the first convolution, and of the left variances."""
        convolution, identity = self._shortcuts(last.k.dtype)

        def block(step: jax.Array, state: _Adjoints) -> _Adjoints:
            above, q, scratch = state
            i, place = self.blocks - 1 - step, 2 * (step % 2)
            sums, scratch = through(scratch, place, _box_sums(above))
            middle = self._relu_adjoint(2 * i + 1, buffer, left, right, sums, signed=False)
            inner, scratch = through(scratch, place + 1, _box_sums(PairState(middle.k, middle.m)))
            x = self._relu_adjoint(2 * i, buffer, left, right, inner, signed=True)
            # Through the convolution of the shortcut, K_x counts in m_y as well, and so do its variances.
            share = x.q + (0.5 * convolution[i]) * sums.m
            k = x.k + convolution[i] * (sums.e + sums.m) + identity[i] * above.e
            m = x.m + convolution[i] * sums.m + identity[i] * above.m
            return PairState(k, m), _Shares(add_at(q.stream, i, share), add_at(q.middle, i, middle.q)), scratch

        q = _Shares(add_at(q.stream, self.blocks, last.q), q.middle)
        start = PairState(last.k, last.m)
        first, q, _ = loop(0, self.blocks, block, (start, q, empty_buffer(start, 4)))
        return first.e, q

    def _relu_adjoint(
        self, relu: jax.Array, buffer: PairState, left: Norms, right: Norms, sums: PairState, *, signed: bool
    ) -> Adjoint:
        y, z = self.gain * sums.e, self.gain * sums.m
        return adjoint(at(buffer, relu), at(left, relu), at(right, relu), y, z, signed=signed)

    def _shortcuts(self, dtype: np.dtype) -> tuple[jax.Array, jax.Array]:
        """Factors (blocks,) of the convolution and of the identity."""
        starts = np.array([place == 0 for length in RESNET_STAGES[self.depth] for place in range(length)])
        return jnp.asarray(2 * self.gain * starts, dtype), jnp.asarray(~starts, dtype)

    def _inner(self, x: PairState, left: Norms, right: Norms) -> PairState:
        sums = _box_sums(after(x, left, right, signed=True))
        return PairState(self.gain * sums.e, self.gain * sums.m)

    def _outer(self, i: jax.Array, x: PairState, middle: PairState, left: Norms, right: Norms) -> PairState:
        convolution, identity = (s[i] for s in self._shortcuts(x.e.dtype))
        above = after(middle, at(left, 2 * i + 1), at(right, 2 * i + 1), signed=False)
        ntk = ntk_before(x, at(left, 2 * i), at(right, 2 * i))
        sums = _box_sums(PairState(self.gain * above.e + convolution * x.e, self.gain * above.m + convolution * ntk))
        return PairState(sums.e + identity * x.e, sums.m + identity * x.m)


def _box_sums(a: PairState) -> PairState:
    return PairState(box_sum(a.e), box_sum(a.m))
