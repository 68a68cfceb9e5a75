"""CNN-x: x times a 3x3 convolution and a ReLU, layer after layer in one loop."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from advntk_dist.kernels.xla.checkpoint_buffer import (
    add_at,
    at,
    border,
    box_sum,
    empty_buffer,
    inner_sum,
    loop,
    put,
    through,
)
from advntk_dist.kernels.xla.relu import Adjoint, Norms, PairState, adjoint, after, distance_after

_Adjoints = tuple[jax.Array, jax.Array, jax.Array, PairState]


@dataclass(frozen=True)
class CNNStack:
    """The hidden layers of CNN-x; see :class:`advntk_dist.kernels.xla.convolutional.Stack` for the methods.

    Attributes
    ----------
    relus
        x.
    gain
        W_std^2 / 18: of a 3x3 sum after a ReLU.
    bias
        b_std^2.
    """

    relus: int
    gain: float
    bias: float

    @property
    def input_bias(self) -> float:
        """Variance of the bias of the first convolution."""
        return self.bias

    @property
    def signed_end(self) -> bool:
        """Only the first ReLU sees negative cosines."""
        return self.relus == 1

    def variances(self, first: jax.Array) -> jax.Array:
        """Variances before every ReLU."""

        def layer(q: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            return self.gain * box_sum(q) + self.bias, q

        return jax.lax.scan(layer, first, length=self.relus)[1]

    def distances(self, e: jax.Array, left: Norms, right: Norms) -> jax.Array:
        """Half squared distances before the last ReLU."""
        if self.relus == 1:
            return e

        def layer(depth: jax.Array, a: jax.Array) -> jax.Array:
            e = self.gain * inner_sum(a)
            return border(distance_after(e, at(left, depth), at(right, depth), signed=False))

        first = border(distance_after(e, at(left, 0), at(right, 0), signed=True))
        return self.gain * inner_sum(loop(1, self.relus - 1, layer, first))

    def forward(self, e: jax.Array, left: Norms, right: Norms) -> PairState:
        """Pairs before the last ReLU."""
        start = PairState(e, jnp.zeros_like(e))
        if self.relus == 1:
            return start

        def layer(depth: jax.Array, state: tuple[PairState, PairState]) -> tuple[PairState, PairState]:
            below, scratch = state
            pairs, scratch = through(scratch, depth % 2, self._convolve(below))
            return self._after(pairs, at(left, depth), at(right, depth), signed=False), scratch

        first = self._after(start, at(left, 0), at(right, 0), signed=True)
        last, _ = loop(1, self.relus - 1, layer, (first, empty_buffer(start, 2)))
        return self._convolve(last)

    def record(self, e: jax.Array, left: Norms, right: Norms, buffer: PairState) -> PairState:
        """Pairs before every ReLU."""
        start = PairState(e, jnp.zeros_like(e))
        buffer = put(buffer, 0, start)
        if self.relus == 1:
            return buffer

        def layer(depth: jax.Array, state: tuple[PairState, PairState]) -> tuple[PairState, PairState]:
            below, kept = state
            pairs, kept = through(kept, depth, self._convolve(below))
            return self._after(pairs, at(left, depth), at(right, depth), signed=False), kept

        first = self._after(start, at(left, 0), at(right, 0), signed=True)
        last, buffer = loop(1, self.relus - 1, layer, (first, buffer))
        return put(buffer, self.relus - 1, self._convolve(last))

    def shares(self, e: jax.Array) -> jax.Array:
        """Zeros for the adjoints of the left variances."""
        return jnp.zeros((self.relus, *e.shape), e.dtype)

    def in_order(self, q: jax.Array) -> jax.Array:
        """The adjoints of the left variances, ReLU by ReLU."""
        return q

    def backward(
        self, buffer: PairState, left: Norms, right: Norms, last: Adjoint, q: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Adjoint of the NNGP after the first convolution, and of the left variances."""
        q = add_at(q, self.relus - 1, last.q)
        if self.relus == 1:
            return last.k, q

        def layer(depth: int | jax.Array, state: _Adjoints, signed: bool) -> _Adjoints:
            k, m, q, scratch = state
            (y, z), scratch = through(scratch, depth % 2, self._convolve(PairState(k, m)))
            below = adjoint(at(buffer, depth), at(left, depth), at(right, depth), y, z, signed=signed)
            return border(below.k), border(below.m), add_at(q, depth, below.q), scratch

        state = (border(last.k), border(last.m), q, empty_buffer(PairState(last.k, last.m), 2))
        state = loop(1, self.relus - 1, lambda i, s: layer(self.relus - 1 - i, s, False), state)
        k, _, q, _ = layer(0, state, True)
        return k[1:-1, 1:-1], q

    def _convolve(self, bordered: PairState) -> PairState:
        return PairState(self.gain * inner_sum(bordered.e), self.gain * inner_sum(bordered.m))

    def _after(self, pairs: PairState, left: Norms, right: Norms, *, signed: bool) -> PairState:
        above = after(pairs, left, right, signed=signed)
        return PairState(border(above.e), border(above.m))
