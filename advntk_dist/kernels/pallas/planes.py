"""3x3 sums over the pixels of pairs that one program holds.

Threads of a GPU program cannot reach into each other's registers, so sums over neighbours go through memory: the
rows through a plane with a row of zeros above and below, the columns through one with zeros left and right. Both are
written and read by one program alone, a few kilobytes that live in its first-level cache. Banded matrix products
would keep them in registers, but cost 64 multiplications a pixel where this costs four additions, or, on tensor
cores, give up the rounding of float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from advntk_dist.kernels.pallas.launch import Launch, power_of_two

_MARGIN = 4
"""Columns of zeros on each side; one would do, four keep rows aligned to 16 bytes."""


@dataclass(frozen=True)
class Frame:
    """Images of height x width pixels in arrays whose sides are powers of two."""

    height: int
    width: int

    @property
    def rows(self) -> int:
        """Height of the arrays."""
        return power_of_two(self.height)

    @property
    def columns(self) -> int:
        """Width of the arrays."""
        return power_of_two(self.width)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the arrays."""
        return self.rows, self.columns

    @property
    def room(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of the memory that :class:`Planes` needs for sums of two arrays at a time."""
        return (2, self.rows + 2, self.columns), (2, self.rows, self.columns + 2 * _MARGIN)

    def inside(self) -> jax.Array | None:
        """Which pixels (rows, columns) belong to the image; None if all do."""
        if (self.height, self.width) == self.shape:
            return None
        row, column = (jax.lax.broadcasted_iota(jnp.int32, self.shape, axis) for axis in (0, 1))
        return (row < self.height) & (column < self.width)

    def pad(self, a: jax.Array) -> jax.Array:
        """Zeros below and right of the two last axes, up to the size of the arrays."""
        sides = ((0, self.rows - self.height), (0, self.columns - self.width))
        return jnp.pad(a, ((0, 0),) * (a.ndim - 2) + sides)

    def crop(self, a: jax.Array) -> jax.Array:
        """The inverse of :meth:`pad`."""
        return a[..., : self.height, : self.width]


@dataclass(frozen=True)
class Planes:
    """Memory of one program for sums over neighbours.

    Attributes
    ----------
    frame
        Sizes.
    launch
        Knows the barrier between writing and reading.
    by_row, by_column
        References to memory of the shapes ``frame.room``.
    """

    frame: Frame
    launch: Launch
    by_row: Any
    by_column: Any

    def clear(self, dtype: Any) -> None:
        """Write the zeros around the image; the first sum waits for them."""
        f = self.frame
        for plane in range(2):
            for row in (0, f.rows + 1):
                self.by_row[plane, row, :] = jnp.zeros(f.columns, dtype)
            for column in (_MARGIN - 1, _MARGIN + f.columns):
                self.by_column[plane, :, column] = jnp.zeros(f.rows, dtype)

    def box_sum(self, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        """3x3 sums of one or two arrays (rows, columns), with zeros around the image.

        Where the arrays are larger than the image, what stands outside it does not count, and what comes back
        there means nothing.
        """
        rows, columns = self.frame.rows, self.frame.columns
        inside = self.frame.inside()
        masked = [a if inside is None else jnp.where(inside, a, 0.0) for a in arrays]
        for plane, a in enumerate(masked):
            self.by_row[plane, 1 : rows + 1, :] = a
        self.launch.barrier()
        summed = []
        for plane, a in enumerate(masked):
            v = self.by_row[plane, 0:rows, :] + a + self.by_row[plane, 2 : rows + 2, :]
            self.by_column[plane, :, _MARGIN : _MARGIN + columns] = v
            summed.append(v)
        self.launch.barrier()
        return tuple(
            self.by_column[plane, :, _MARGIN - 1 : _MARGIN - 1 + columns]
            + v
            + self.by_column[plane, :, _MARGIN + 1 : _MARGIN + 1 + columns]
            for plane, v in enumerate(summed)
        )
