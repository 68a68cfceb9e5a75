"""ReLU MLPs on the GPU: matrix products over the pixels around one program for all layers of a block of pairs.

The products are left to the vendor's library: they are nearly all of the work (for CIFAR-10 6,144 operations a pair
and product, against about 50 a layer), and handing over their result costs 8 bytes of memory traffic a pair. The
program reads it and writes one number a pair; for the gradient it also reads the weight and writes the adjoint of
the product, which a second product takes to the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from advntk_dist.kernels.backend import KernelKind
from advntk_dist.kernels.pallas.launch import Launch, empty
from advntk_dist.kernels.pallas.layer import Geometry, adjoint, geometry, relu
from advntk_dist.kernels.xla.relu import Adjoint, Pairs

MOST_RELUS = 64
"""The layers are written out, and for the gradient the pairs before every ReLU stay in registers."""
ROWS, COLUMNS = 16, 64
"""Left and right images of a program."""
_COINCIDENT = 16
"""Units of rounding that a cosine from a matrix product over the pixels can be off by."""


class PreparedVectors(NamedTuple):
    """Images of one side of a tile: flat pixels (b, d), norms before every ReLU (b, L)."""

    x: jax.Array
    n: jax.Array


@dataclass(frozen=True)
class DenseTile:
    """MLP-x: Flatten, (Dense, ReLU) x (x - 1), Dense.

    Attributes
    ----------
    relus
        x - 1.
    W_std, b_std
        Standard deviations of weights and biases.
    launch
        Where programs run.

    Raises
    ------
    NetworkError
        By the tiles, where there is no GPU.
    """

    relus: int
    W_std: float
    b_std: float
    launch: Launch

    def prepare(self, x2: jax.Array) -> PreparedVectors:
        """Flat pixels and norms."""
        x = x2.reshape(x2.shape[0], -1)
        every = [self._per_pixel(x) * (x * x).sum(axis=1) + self.b_std**2]
        for _ in range(self.relus - 1):
            every.append(self._gain * every[-1] + self.b_std**2)
        return PreparedVectors(x, jnp.sqrt(jnp.stack(every, axis=1)))

    def tile(self, x1: jax.Array, prepared: PreparedVectors, kind: KernelKind) -> jax.Array:
        """Kernel values (b1, b2)."""
        self.launch.require_device()
        left, right = _filled(self.prepare(x1), ROWS), _filled(prepared, COLUMNS)
        first = self._first(left, right)
        (tile,) = self._over_blocks(partial(self._values, kind), left, right, [first], [_pairs(first)])
        return tile[: len(x1), : len(prepared.x)]

    def tile_vjp(self, x1: jax.Array, prepared: PreparedVectors, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """NTK tile (b1, b2), and d sum(weight * tile) / d x1."""
        self.launch.require_device()
        rows, columns = weight.shape
        left, right = _filled(self.prepare(x1), ROWS), _filled(prepared, COLUMNS)
        first = self._first(left, right)
        w = jnp.pad(weight, ((0, len(left.x) - rows), (0, len(right.x) - columns)))
        by_row = (
            empty((first.shape[1] // COLUMNS, first.shape[0]), w.dtype),
            pl.BlockSpec((None, ROWS), lambda i, j: (j, i)),
        )
        outputs = [_pairs(first), _pairs(first), by_row]
        tile, k, per_row = self._over_blocks(self._gradients, left, right, [first, w], outputs)
        gradient = k @ right.x + per_row.sum(axis=0)[:, None] * left.x
        gradient = gradient[:rows] * self._per_pixel(left.x)
        return tile[:rows, :columns], gradient.reshape(x1.shape)

    def _over_blocks(
        self, kernel: Any, left: PreparedVectors, right: PreparedVectors, inputs: list[jax.Array], outputs: list[Any]
    ) -> list[jax.Array]:
        """Run a program a block of pairs, on the norms (L, b) of both sides and arrays (b1, b2) of the pairs."""
        norms = [
            (left.n.T, pl.BlockSpec((self.relus, ROWS), lambda i, j: (jnp.int32(0), i))),
            (right.n.T, pl.BlockSpec((self.relus, COLUMNS), lambda i, j: (jnp.int32(0), j))),
        ]
        return self.launch(
            kernel,
            grid=(len(left.x) // ROWS, len(right.x) // COLUMNS),
            inputs=norms + [(a, _pairs(a)[1]) for a in inputs],
            outputs=outputs,
            elements=ROWS * COLUMNS,
        )

    def _values(self, kind: KernelKind, n_1: Any, n_2: Any, first: Any, tile: Any) -> None:
        last = self._forward(n_1, n_2, first)[-1]
        tile[:, :] = self._value(self._geometry(n_1, n_2, self.relus - 1, last), last, kind)

    def _gradients(self, n_1: Any, n_2: Any, first: Any, weight: Any, tile: Any, k: Any, per_row: Any) -> None:
        every, w = self._forward(n_1, n_2, first), weight[:, :]
        tile[:, :] = self._value(self._geometry(n_1, n_2, self.relus - 1, every[-1]), every[-1], "ntk")
        # The readout sums s kappa_1 itself, not the distances whose variances the adjoint counts in.
        state = Adjoint(w, w, 0.5 * w)
        for depth in reversed(range(self.relus)):
            g = self._geometry(n_1, n_2, depth, every[depth])
            y, z = self._gain * state.k, self._gain * state.m
            below = adjoint(g, every[depth], *_norms(n_1, n_2, depth), y, z)
            state = Adjoint(below.k, below.m, self._gain * state.q + below.q)
        k[:, :] = state.k
        # k is the adjoint of the NNGP at fixed distances (e = (q_1 + q_2) / 2 - K): q_1 carries the rest.
        per_row[:] = (2.0 * state.q - state.k).sum(axis=1)

    def _forward(self, n_1: Any, n_2: Any, first: Any) -> list[Pairs]:
        """Pairs before every ReLU; directions that the product cannot tell apart count as one."""
        here, there = _norms(n_1, n_2, 0)
        s, difference = here * there, here - there
        h = s - first[:, :]
        h = jnp.where(h > (_COINCIDENT * float(jnp.finfo(h.dtype).eps)) * s, h, 0.0)
        e = h + 0.5 * difference * difference
        every = [Pairs(e, jnp.zeros_like(e))]
        for depth in range(self.relus - 1):
            above = relu(self._geometry(n_1, n_2, depth, every[-1]), every[-1])
            every.append(Pairs(self._gain * above.distance, self._gain * above.rest))
        return every

    def _geometry(self, n_1: Any, n_2: Any, depth: int, pairs: Pairs) -> Geometry:
        return geometry(pairs.e, *_norms(n_1, n_2, depth), signed=depth == 0)

    def _value(self, g: Geometry, last: Pairs, kind: KernelKind) -> jax.Array:
        above = relu(g, last)
        return self._gain * (above.product if kind == "nngp" else above.product + above.rest) + self.b_std**2

    def _first(self, left: PreparedVectors, right: PreparedVectors) -> jax.Array:
        """NNGP after the first layer."""
        return (left.x @ right.x.T) * self._per_pixel(left.x) + self.b_std**2

    @property
    def _gain(self) -> float:
        return self.W_std**2 / 2

    def _per_pixel(self, x: jax.Array) -> float:
        return self.W_std**2 / x.shape[1]


def _norms(n_1: Any, n_2: Any, depth: int) -> tuple[jax.Array, jax.Array]:
    return n_1[depth, :][:, None], n_2[depth, :][None, :]


def _pairs(a: jax.Array) -> tuple[jax.ShapeDtypeStruct, pl.BlockSpec]:
    return empty(a.shape, a.dtype), pl.BlockSpec((ROWS, COLUMNS), lambda i, j: (i, j))


def _filled(side: PreparedVectors, multiple: int) -> PreparedVectors:
    """All-zero images added up to a multiple."""
    missing = -len(side.x) % multiple
    return jax.tree.map(lambda a: jnp.pad(a, ((0, missing), (0, 0))), side)
