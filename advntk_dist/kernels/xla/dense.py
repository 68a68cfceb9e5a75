"""ReLU MLPs: matrix products over the pixels around loops over the pairs.

The value goes through all layers in one loop. The gradient cuts the pairs into strips of rows that stay in cache
while all layers pass over them, forward and back; its second matrix product takes the strips' adjoints to the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from advntk_dist.kernels.backend import KernelKind
from advntk_dist.kernels.xla.blocks import block_rows, in_blocks
from advntk_dist.kernels.xla.relu import (
    Adjoint,
    Norms,
    Pairs,
    adjoint,
    after,
    distance_after,
    product_after,
    rest_after,
    with_inverse,
)
from advntk_dist.kernels.xla.tape import at, loop, put, room

_COINCIDENT = 16
"""Units of rounding that a cosine from a matrix product over the pixels can be off by."""


class PreparedVectors(NamedTuple):
    """Images of one side of a tile: flat pixels (b, d), variances before every ReLU (b, relus)."""

    x: jax.Array
    q: jax.Array


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
        """Flat pixels and variances."""
        x = x2.reshape(x2.shape[0], -1)
        every = [self._per_pixel(x) * (x * x).sum(axis=1) + self.b_std**2]
        for _ in range(self.depth - 2):
            every.append(self.W_std**2 / 2 * every[-1] + self.b_std**2)
        return PreparedVectors(x, jnp.stack(every, axis=1))

    def tile(self, x1: jax.Array, prepared: PreparedVectors, kind: KernelKind) -> jax.Array:
        """Kernel values (b1, b2)."""
        left = self.prepare(x1)
        rows, columns = x1.shape[0], prepared.x.shape[0]
        height = block_rows(rows, columns * x1.dtype.itemsize)

        def strip(part: tuple[jax.Array, jax.Array]) -> jax.Array:
            first, q = part
            here, there = self._norms(q, prepared.q)
            pairs = self._start(first, q, prepared.q)
            for depth in range(self.relus - 1):
                ends, signed = (at(here, depth), at(there, depth)), depth == 0
                above = distance_after(pairs.e, *ends, signed=signed)
                pairs = self._dense(Pairs(above, rest_after(pairs, *ends, signed=signed)))
            return self._value(pairs, here, there, kind)

        strips = (in_blocks(self._first(left, prepared), height), in_blocks(left.q, height))
        return jax.lax.map(strip, strips).reshape(-1, columns)[:rows]

    def tile_vjp(self, x1: jax.Array, prepared: PreparedVectors, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """NTK tile (b1, b2), and d sum(weight * tile) / d x1."""
        left = self.prepare(x1)
        rows, columns = weight.shape
        height = block_rows(rows, columns * weight.dtype.itemsize)
        strips = tuple(in_blocks(a, height) for a in (self._first(left, prepared), left.q, weight))

        def strip(tape: Pairs, part: tuple[jax.Array, ...]) -> tuple[Pairs, tuple[jax.Array, ...]]:
            first, q, w = part
            here, there = self._norms(q, prepared.q)
            tape = self._record(self._start(first, q, prepared.q), here, there, tape)
            value = self._value(at(tape, self.relus - 1), here, there, "ntk")
            k, q = self._backward(tape, here, there, w)
            # k is the adjoint of the NNGP at fixed distances (e = (q_1 + q_2) / 2 - K): q_1 carries the rest.
            return tape, (value, k, (2.0 * q - k) @ jnp.ones(columns, k.dtype))

        _, results = jax.lax.scan(strip, room(strips[0][0], self.relus), strips)
        value, k, per_row = (a.reshape(-1, *a.shape[2:])[:rows] for a in results)
        gradient = k @ prepared.x + per_row[:, None] * left.x
        return value, (gradient * self._per_pixel(left.x)).reshape(x1.shape)

    @property
    def relus(self) -> int:
        """ReLUs in all."""
        return self.depth - 1

    def _first(self, left: PreparedVectors, right: PreparedVectors) -> jax.Array:
        """NNGP after the first layer."""
        return (left.x @ right.x.T) * self._per_pixel(left.x) + self.b_std**2

    def _start(self, first: jax.Array, left: jax.Array, right: jax.Array) -> Pairs:
        """Pairs before the first ReLU; directions that a matrix product cannot tell apart count as one."""
        here, there = jnp.sqrt(left[:, :1]), jnp.sqrt(right[:, 0])
        s, difference = here * there, here - there
        h = s - first
        h = jnp.where(h > (_COINCIDENT * float(jnp.finfo(h.dtype).eps)) * s, h, 0.0)
        e = h + 0.5 * difference * difference
        return Pairs(e, jnp.zeros_like(e))

    def _dense(self, above: Pairs) -> Pairs:
        return Pairs(self.W_std**2 / 2 * above.e, self.W_std**2 / 2 * above.m)

    def _value(self, last: Pairs, here: Norms, there: Norms, kind: KernelKind) -> jax.Array:
        ends, signed = (at(here, self.relus - 1), at(there, self.relus - 1)), self.relus == 1
        total = product_after(last.e, *ends, signed=signed)
        if kind == "ntk":
            total = total + rest_after(last, *ends, signed=signed)
        return self.W_std**2 / 2 * total + self.b_std**2

    def _record(self, start: Pairs, here: Norms, there: Norms, tape: Pairs) -> Pairs:
        """Pairs before every ReLU."""

        def layer(depth: int | jax.Array, kept: Pairs, signed: bool) -> Pairs:
            above = after(at(kept, depth), at(here, depth), at(there, depth), signed=signed)
            return put(kept, depth + 1, self._dense(above))

        tape = put(tape, 0, start)
        if self.relus == 1:
            return tape
        return loop(1, self.relus - 1, lambda depth, kept: layer(depth, kept, False), layer(0, tape, True))

    def _backward(self, tape: Pairs, here: Norms, there: Norms, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Adjoints of the first NNGP and, with all that follow from it, of the first left variance, pair by pair."""
        gain = self.W_std**2 / 2

        def layer(depth: int | jax.Array, state: Adjoint, signed: bool) -> Adjoint:
            y, z = gain * state.k, gain * state.m
            below = adjoint(at(tape, depth), at(here, depth), at(there, depth), y, z, signed=signed)
            return Adjoint(below.k, below.m, gain * state.q + below.q)

        # The readout sums s kappa_1 itself, not the distances whose variances the adjoint counts in.
        state = Adjoint(weight, weight, 0.5 * weight)
        if self.relus > 1:
            state = loop(0, self.relus - 1, lambda step, s: layer(self.relus - 1 - step, s, False), state)
        state = layer(0, state, True)
        return state.k, state.q

    def _norms(self, left: jax.Array, right: jax.Array) -> tuple[Norms, Norms]:
        return with_inverse(jnp.sqrt(left).T[:, :, None]), with_inverse(jnp.sqrt(right).T[:, None, :])

    def _per_pixel(self, x: jax.Array) -> float:
        return self.W_std**2 / x.shape[1]
