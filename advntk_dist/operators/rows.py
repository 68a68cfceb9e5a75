"""Rows of a product that some tiles add to, without the others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import numpy as np
from numpy.typing import NDArray

from advntk_dist.grid import Tile

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Rows of a matrix, in blocks, as they lie one below the other in a smaller array.

    Attributes
    ----------
    blocks
        Disjoint, in ascending order, and not adjacent.
    """

    blocks: tuple[slice, ...]

    @classmethod
    def all(cls, n: int) -> Self:
        """All rows of a matrix."""
        return cls((slice(0, n),))

    @classmethod
    def touched(cls, tiles: Iterable[Tile]) -> Self:
        """Rows of Theta v that some stored tiles add to: their own, and through their mirror images their columns."""
        found = {side for t in tiles for side in ((t.row_start, t.row_stop), (t.col_start, t.col_stop))}
        blocks: list[slice] = []
        for start, stop in sorted(found):
            if blocks and blocks[-1].stop == start:
                start = blocks.pop().start
            blocks.append(slice(start, stop))
        return cls(tuple(blocks))

    def __len__(self) -> int:
        return sum(block.stop - block.start for block in self.blocks)

    def within(self, rows: slice) -> slice:
        """Where some neighbouring rows of the matrix, all of them in one block, lie in the smaller array."""
        number = bisect_right([block.start for block in self.blocks], rows.start) - 1
        shift = sum(block.stop - block.start for block in self.blocks[:number]) - self.blocks[number].start
        return slice(rows.start + shift, rows.stop + shift)

    def add(self, small: Array, product: Array) -> None:
        """Add an array of these rows, (len(self), k), to that of all rows, (n, k)."""
        stops = list(accumulate(block.stop - block.start for block in self.blocks))
        for block, stop in zip(self.blocks, stops, strict=True):
            product[block] += small[stop - (block.stop - block.start) : stop]
