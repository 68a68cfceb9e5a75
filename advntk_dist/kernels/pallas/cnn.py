"""CNN-x on the GPU: one program takes a left image against right images, one by one, through all layers.

The two numbers a pixel of a pair stay in registers, except that sums over neighbours, and for the gradient the pairs
before every ReLU, pass through memory that one program alone writes, reads and uses again for its next pair: cache,
not memory traffic. With L ReLUs, p pixels, C channels, float32, and b_1 left against b_2 right images, a pair costs

    operations       value 69 L p, gradient 156 L p (one an elementwise primitive; cnn-10: 0.71e6 and 1.6e6),
    memory           4 bytes written, 4 p (C + L) (1 / b_1 + 1 / b_2) read (the gradient writes as much a program),
    cache            value 16 L p bytes written and 40 L p read, gradient 44 L p and 92 L p.

Compiled for compute capability 9.0 by Triton 3.6, the layer loop of the value is 64 instructions a pixel (in 64
registers, so that 32 warps share a multiprocessor), those of the gradient 156 together (in 100). At the full issue
rate of an H200 (1.755 GHz) that is 28 s for the 1.25e9 distinct pairs of CIFAR-10 through cnn-10; bandwidth of the
caches will make it more. Not yet measured on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from advntk_dist.errors import NetworkError
from advntk_dist.kernels.backend import KernelKind
from advntk_dist.kernels.pallas.convolve import Program
from advntk_dist.kernels.pallas.launch import MEMORY, Launch, block, empty
from advntk_dist.kernels.pallas.planes import Frame
from advntk_dist.kernels.xla.box import box_sum

PROGRAMS = 8192
"""Programs a launch at most: several times what a large GPU runs at once."""
MOST_PIXELS = 4096
"""Of an image whose sides are filled up to powers of two: as many as the registers of a program hold."""


class PreparedImages(NamedTuple):
    """Images, sides filled up to powers of two: pixels (b, C, H, W), norms before every ReLU (b, L, H, W)."""

    x: jax.Array
    n: jax.Array


@dataclass(frozen=True)
class ConvolutionalTile:
    """CNN-x: (Conv 3x3, ReLU) x x, Flatten, Dense.

    Attributes
    ----------
    relus
        x.
    W_std, b_std
        Standard deviations of weights and biases.
    launch
        Where programs run.

    Raises
    ------
    NetworkError
        By all methods, for images that are too large; by the tiles, where there is no GPU.
    """

    relus: int
    W_std: float
    b_std: float
    launch: Launch

    def prepare(self, x2: jax.Array) -> PreparedImages:
        """Pixels and norms of the right-hand images (b2, H, W, C)."""
        frame = _frame(x2)
        n = jnp.sqrt(jnp.moveaxis(self._variances(x2), -1, 0))
        return PreparedImages(frame.pad(jnp.moveaxis(x2, -1, 1)), frame.pad(n))

    def tile(self, x1: jax.Array, prepared: PreparedImages, kind: KernelKind) -> jax.Array:
        """Kernel values (b1, b2)."""
        self.launch.require_device()
        frame, left, columns = _frame(x1), self.prepare(x1), len(prepared.x)
        right = _shared_out(prepared, len(x1), frame.room)
        grid, each = (len(x1), len(right[0])), right[0].shape[1]
        shapes = [(*grid, *part) for part in ((each,), *frame.room)]
        tile, *_ = self.launch(
            partial(self._program(frame, x1).values, kind),
            grid=grid,
            inputs=[(a, block(a.shape, 0)) for a in left] + [(a, block(a.shape, 1)) for a in right],
            outputs=[(empty(s, x1.dtype), block(s, 0, 1)) for s in shapes],
            elements=frame.rows * frame.columns,
        )
        return tile.reshape(len(x1), -1)[:, :columns]

    def tile_vjp(self, x1: jax.Array, prepared: PreparedImages, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """NTK tile (b1, b2), and d sum(weight * tile) / d x1."""
        self.launch.require_device()
        frame, left, columns = _frame(x1), self.prepare(x1), len(prepared.x)
        tape = (max(self.relus - 1, 1), 2, *frame.shape)
        memory = (left.n.shape[1:], left.x.shape[1:], *frame.room, tape)
        right = _shared_out(prepared, len(x1), memory)
        grid, each = (len(x1), len(right[0])), right[0].shape[1]
        filled = jnp.pad(weight, ((0, 0), (0, grid[1] * each - columns))).reshape(*grid, each)
        shapes = [(*grid, *part) for part in ((each,), *memory)]
        tile, q, x, *_ = self.launch(
            self._program(frame, x1).gradients,
            grid=grid,
            inputs=[(a, block(a.shape, 0)) for a in left]
            + [(a, block(a.shape, 1)) for a in right]
            + [(filled, block(filled.shape, 0, 1))],
            outputs=[(empty(s, x1.dtype), block(s, 0, 1)) for s in shapes],
            elements=frame.rows * frame.columns,
        )
        program = self._program(frame, x1)
        # The readout sums s kappa_1 itself, not the distances whose variances the adjoint counts in.
        readout = (0.5 * program.readout) * weight.sum(axis=1)
        q = frame.crop(q.sum(axis=1)).at[:, -1].add(readout[:, None, None])
        _, through_variance = jax.vjp(self._variances, x1)
        gradient = program.per_tap * jnp.moveaxis(frame.crop(x.sum(axis=1)), 1, -1)
        return tile.reshape(len(x1), -1)[:, :columns], gradient + through_variance(jnp.moveaxis(q, 0, -1))[0]

    def _program(self, frame: Frame, x: jax.Array) -> Program:
        gain, pixels, channels = self.W_std**2, frame.height * frame.width, x.shape[-1]
        return Program(
            relus=self.relus,
            gain=gain / 18,
            per_tap=gain / (9 * channels),
            readout=gain / (2 * pixels),
            offset=self.b_std**2,
            frame=frame,
            launch=self.launch,
        )

    def _variances(self, x: jax.Array) -> jax.Array:
        """Variances (L, H, W, b) before every ReLU, of images (b, H, W, C)."""
        squares = jnp.moveaxis((x * x).sum(axis=-1), 0, -1)
        q = box_sum(squares) * (self.W_std**2 / (9 * x.shape[-1])) + self.b_std**2
        every = [q]
        for _ in range(self.relus - 1):
            every.append(self.W_std**2 / 18 * box_sum(every[-1]) + self.b_std**2)
        return jnp.stack(every)


def _frame(x: jax.Array) -> Frame:
    frame = Frame(x.shape[1], x.shape[2])
    if frame.rows * frame.columns > MOST_PIXELS:
        raise NetworkError(
            f"network.backend: pallas holds images of up to {MOST_PIXELS} pixels with their sides filled up to powers "
            f"of two, not {frame.height}x{frame.width}; use backend xla"
        )
    return frame


def _shared_out(
    prepared: PreparedImages, left: int, memory: tuple[tuple[int, ...], ...]
) -> tuple[jax.Array, jax.Array]:
    """Right images in equal parts (parts, images, ...), the last filled up with zeros.

    A program takes one part against one of ``left`` images, and has arrays of the shapes ``memory`` for itself.
    """
    images = len(prepared.x)
    bytes_each = prepared.x.dtype.itemsize * sum(math.prod(shape) for shape in memory)
    parts = min(images, max(1, min(PROGRAMS, MEMORY // bytes_each) // left))
    each = -(-images // parts)
    parts = -(-images // each)

    def share(a: jax.Array) -> jax.Array:
        filled = jnp.pad(a, ((0, parts * each - images),) + ((0, 0),) * (a.ndim - 1))
        return filled.reshape(parts, each, *a.shape[1:])

    return share(prepared.x), share(prepared.n)
