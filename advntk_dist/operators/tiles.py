"""Where an operator finds the tiles of a Gram matrix: in an array, or in the files of a store.

A tile is handed out in panels, runs of its rows: a panel and its float64 copy stay in a core's cache while both
products of a symmetric matrix are taken with it, so that each element is fetched from memory once a pass.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from advntk_dist.errors import StoreDamagedError
from advntk_dist.grid import Tile, TileGrid, mirror, spans
from advntk_dist.operators.base import GramOperator

if TYPE_CHECKING:
    from advntk_dist.gram.store import GramStore


@runtime_checkable
class Tiles(Protocol):
    """Tiles on and above the diagonal of a symmetric matrix."""

    @property
    def grid(self) -> TileGrid:
        """The symmetric grid of the matrix."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        ...

    def panels(self, t: Tile, rows: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Slices of the tile's own rows, at most ``rows`` each, in order, with their values (rows, tile columns).

        A panel is only valid until the next one is taken.
        """
        ...

    def expect(self, t: Tile) -> None:
        """Announce that this tile is wanted soon, so that a disk may be busy while a core computes."""
        ...


class ArrayTiles:
    """Tiles of an array in memory; what lies below the diagonal tiles is never read.

    With ``mirrored`` the part of a diagonal tile below the diagonal is not read either: it is the mirror image of the
    part above.
    """

    def __init__(self, theta: NDArray[Any], tile: int, *, mirrored: bool = False) -> None:
        self.theta, self.mirrored = theta, mirrored
        self.grid = TileGrid.square(len(theta), tile)
        self.dtype: np.dtype[Any] = theta.dtype

    def panels(self, t: Tile, rows: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Views into the array, or into a mirrored copy of a tile."""
        values = self.theta[t.rows, t.cols]
        if self.mirrored and t.on_diagonal:
            values = values.copy()
            mirror(values)
        for panel in spans(t.shape[0], rows):
            yield panel, values[panel]

    def expect(self, t: Tile) -> None:
        """Does nothing: the tile is in memory."""


class StoreTiles:
    """Tiles of a Gram store, read from their files.

    The first time that this object reads a tile it reads it whole, and checks its checksum against the commit record.
    Later passes read panel after panel into one small buffer and check only the file's length: what the file system
    hands out a second time is not verified again, and a fresh 16 MB buffer for each tile would cost ten times the
    reading itself, in page faults. Of a store at a URL every tile is read whole, and checked, each time.

    Parameters
    ----------
    store
        A Gram store.
    kind
        Kernel of the store, "ntk" or "nngp".
    """

    def __init__(self, store: GramStore, kind: str = "ntk") -> None:
        self.store, self.kind = store, kind
        self.grid = store.grid
        self.dtype: np.dtype[Any] = store.dtype
        self._verified: set[tuple[int, int]] = set()

    def panels(self, t: Tile, rows: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Panels read from the tile's file.

        Raises
        ------
        StoreIncompleteError
            If the tile is not committed.
        StoreDamagedError
            If its file is missing, of another length or, at the first reading, fails its checksum.
        """
        if (t.i, t.j) in self._verified and isinstance(self.store.path, Path):
            yield from self._read(t, rows)
            return
        values = self.whole(t)
        for panel in spans(t.shape[0], rows):
            yield panel, values[panel]

    def expect(self, t: Tile) -> None:
        """Let the file system read the tile's file ahead; without that a pass from disk takes turns with the disk."""
        path = self.store.chunk_path(self.kind, t.i, t.j)
        if not hasattr(os, "posix_fadvise") or not isinstance(path, Path):
            return
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return  # reading the tile raises the error that says what is wrong
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)

    def whole(self, t: Tile) -> NDArray[Any]:
        """The values of a tile, verified."""
        values = self.store.read_tile(self.kind, t.i, t.j)
        self._verified.add((t.i, t.j))
        return values

    def _read(self, t: Tile, rows: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        path = self.store.chunk_path(self.kind, t.i, t.j)
        assert isinstance(path, Path)
        width = self.store.tile  # a ragged tile is stored padded to a whole one
        buffer = np.empty((rows, width), self.dtype.newbyteorder("<"))
        try:
            with path.open("rb", buffering=0) as file:
                for panel in spans(t.shape[0], rows):
                    values = buffer[: panel.stop - panel.start]
                    if file.readinto(values.data) != values.nbytes:
                        raise OSError("it ends too early")
                    yield panel, values[:, : t.shape[1]]
        except OSError as error:
            raise StoreDamagedError(
                f"{self.store.path}: tile ({t.i}, {t.j}) of {self.kind} was intact and now cannot be read "
                f"({error.strerror or error}); run the same command again, which checks it anew"
            ) from error


class TilesOperator(GramOperator):
    """Products with a matrix whose tiles this process can read.

    Parameters
    ----------
    tiles
        Tiles on and above the diagonal of the matrix.
    """

    def __init__(self, tiles: Tiles) -> None:
        super().__init__(tiles.grid.rows)
        self.tiles = tiles

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        return self.tiles.dtype

    def diagonal_mean(self) -> float:
        """Mean of the diagonal, read from the tiles."""
        total = 0.0
        for t in self.tiles.grid:
            if t.on_diagonal:
                for panel, values in self.tiles.panels(t, t.shape[0]):
                    total += float(np.diagonal(values, panel.start).sum(dtype=np.float64))
        return total / self.n
