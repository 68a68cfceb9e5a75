"""What one GPU program does for CNN-x: all layers of a left image against right images one by one, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from advntk_dist.kernels.backend import KernelKind
from advntk_dist.kernels.pallas.launch import Launch, loop
from advntk_dist.kernels.pallas.layer import Geometry, adjoint, geometry, relu
from advntk_dist.kernels.pallas.planes import Frame, Planes
from advntk_dist.kernels.xla.relu import Adjoint, Pairs

Norms = Callable[[Any], tuple[jax.Array, jax.Array]]
"""Norms of the left and the right side before the ReLU of a depth."""


@dataclass(frozen=True)
class Program:
    """The numbers of a network, and the sizes of what a program holds.

    References hold, of the left image, pixels ``x_1`` (C, rows, columns) and norms ``n_1`` (L, rows, columns), and
    of the right images ``x_2`` (images, C, rows, columns) and ``n_2`` (images, L, rows, columns).

    Attributes
    ----------
    relus
        L.
    gain
        W_std^2 / 18: of a 3x3 sum after a ReLU.
    per_tap
        W_std^2 / (9 C): of a 3x3 sum over pixels.
    readout
        W_std^2 / (2 pixels): of the sum over pixels after the last ReLU.
    offset
        b_std^2.
    frame, launch
        Sizes, and the barrier.
    """

    relus: int
    gain: float
    per_tap: float
    readout: float
    offset: float
    frame: Frame
    launch: Launch

    def values(self, kind: KernelKind, x_1: Any, n_1: Any, x_2: Any, n_2: Any, tile: Any, *room: Any) -> None:
        """Kernel values ``tile`` (images,)."""
        planes = Planes(self.frame, self.launch, *room)
        planes.clear(tile.dtype)

        def image(i: jax.Array, _: tuple[()]) -> tuple[()]:
            norms = _norms(n_1, n_2, i)
            e = self._first(planes, x_1, x_2, i)
            last = self._distances(planes, e, norms) if kind == "nngp" else self._forward(planes, e, norms)
            tile[i] = self._value(self._geometry(self.relus - 1, last, norms), last, kind)
            return ()

        loop(tile.shape[0], image, ())

    def gradients(
        self, x_1: Any, n_1: Any, x_2: Any, n_2: Any, weight: Any, tile: Any, q: Any, x: Any, *room: Any
    ) -> None:
        """NTK values ``tile`` (images,), and what their weighted sum gives to the left image.

        ``q`` (L, rows, columns) are the adjoints of its variances, ``x`` (C, rows, columns) that of its pixels
        through distances, without the factor per_tap.
        """
        *memory, tape = room
        planes = Planes(self.frame, self.launch, *memory)
        planes.clear(tile.dtype)
        for sums in (q, x):
            for place in range(sums.shape[0]):
                sums[place] = jnp.zeros(sums.shape[1:], sums.dtype)

        def image(i: jax.Array, _: tuple[()]) -> tuple[()]:
            norms = _norms(n_1, n_2, i)
            last = self._forward(planes, self._first(planes, x_1, x_2, i), norms, tape)
            end = self._geometry(self.relus - 1, last, norms)
            tile[i] = self._value(end, last, "ntk")
            y = self.readout * weight[i]
            below = adjoint(end, last, *norms(self.relus - 1), y, y)
            k = self._backward(planes, below, norms, tape, q)
            (k,) = planes.box_sum(k)
            for channel in range(x.shape[0]):
                x[channel] = x[channel] + k * (x_2[i, channel] - x_1[channel])
            return ()

        loop(tile.shape[0], image, ())

    def _first(self, planes: Planes, x_1: Any, x_2: Any, i: jax.Array) -> jax.Array:
        """E after the first convolution."""
        total = jnp.zeros(self.frame.shape, x_1.dtype)
        for channel in range(x_1.shape[0]):
            difference = x_1[channel] - x_2[i, channel]
            total = total + difference * difference
        return planes.box_sum(total)[0] * (0.5 * self.per_tap)

    def _distances(self, planes: Planes, e: jax.Array, norms: Norms) -> Pairs:
        """E before the last ReLU."""

        def layer(depth: Any, e: jax.Array) -> jax.Array:
            pairs = Pairs(e, jnp.zeros_like(e))
            above = relu(self._geometry(depth, pairs, norms), pairs)
            return self.gain * planes.box_sum(above.distance)[0]

        if self.relus > 1:
            e = loop(self.relus - 2, lambda step, e: layer(step + 1, e), layer(0, e))
        return Pairs(e, jnp.zeros_like(e))

    def _forward(self, planes: Planes, e: jax.Array, norms: Norms, tape: Any = None) -> Pairs:
        """Pairs before the last ReLU; those before every other one go to the tape (L - 1, 2, rows, columns)."""

        def layer(depth: Any, pairs: Pairs) -> Pairs:
            if tape is not None:
                tape[depth, 0], tape[depth, 1] = pairs
            above = relu(self._geometry(depth, pairs, norms), pairs)
            e, m = planes.box_sum(above.distance, above.rest)
            return Pairs(self.gain * e, self.gain * m)

        pairs = Pairs(e, jnp.zeros_like(e))
        if self.relus == 1:
            return pairs
        return loop(self.relus - 2, lambda step, pairs: layer(step + 1, pairs), layer(0, pairs))

    def _backward(self, planes: Planes, last: Adjoint, norms: Norms, tape: Any, q: Any) -> jax.Array:
        """Adjoint of the NNGP after the first convolution; adjoints of the left variances are added to ``q``."""

        def layer(depth: Any, above: Pairs) -> Pairs:
            pairs = Pairs(tape[depth, 0], tape[depth, 1])
            y, z = planes.box_sum(*above)
            g = self._geometry(depth, pairs, norms)
            below = adjoint(g, pairs, *norms(depth), self.gain * y, self.gain * z)
            q[depth] = q[depth] + below.q
            return Pairs(below.k, below.m)

        end = self.relus - 1
        q[end] = q[end] + last.q
        above = Pairs(last.k, last.m)
        if self.relus > 1:
            above = layer(0, loop(self.relus - 2, lambda step, above: layer(end - 1 - step, above), above))
        return above.e

    def _geometry(self, depth: Any, pairs: Pairs, norms: Norms) -> Geometry:
        """Only the first ReLU sees negative cosines; ``depth`` is 0 itself there, never a loop's counter."""
        return geometry(pairs.e, *norms(depth), signed=isinstance(depth, int) and depth == 0)

    def _value(self, g: Geometry, last: Pairs, kind: KernelKind) -> jax.Array:
        above = relu(g, last)
        total = above.product if kind == "nngp" else above.product + above.rest
        inside = self.frame.inside()
        if inside is not None:
            total = jnp.where(inside, total, 0.0)
        return self.readout * total.sum() + self.offset


def _norms(n_1: Any, n_2: Any, i: jax.Array) -> Norms:
    return lambda depth: (n_1[depth], n_2[i, depth])
