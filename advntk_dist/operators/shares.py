"""Which holder keeps which tiles: equal shares that lie close together in the matrix, so that each touches few rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from advntk_dist.grid import Tile, TileGrid
from advntk_dist.operators.products import Run, runs_of
from advntk_dist.operators.rows import Rows


def shares(grid: TileGrid, count: int) -> list[tuple[Run, ...]]:
    """Deal the stored tiles of a symmetric grid out to so many holders.

    The tiles are halved across their longer side, and each half again, until there is one part a holder. So all have
    equally many tiles, give or take one a halving, and a part of 1 / count of the tiles touches about
    n sqrt(2 / count) rows: what all holders send back grows as the square root of their number.

    Parameters
    ----------
    grid
        Symmetric.
    count
        Of holders, at most one a tile.
    """
    return [tuple(runs_of(sorted(part))) for part in _halved(list(grid), count)]


@lru_cache(maxsize=256)
def rows_sent(grid: TileGrid, count: int) -> int:
    """Rows of a product that so many holders send back together."""
    return sum(len(Rows.touched(part)) for part in _halved(list(grid), count))


def _halved(tiles: Sequence[Tile], count: int) -> list[Sequence[Tile]]:
    if count == 1:
        return [tiles]
    tall = len({t.i for t in tiles}) >= len({t.j for t in tiles})
    ordered = sorted(tiles, key=lambda t: (t.i, t.j) if tall else (t.j, t.i))
    first = count // 2
    cut = round(len(tiles) * first / count)
    return [*_halved(ordered[:cut], first), *_halved(ordered[cut:], count - first)]
