"""The columns of a Krylov basis: in memory up to a budget, in Zarr past it.

Columns lie in slabs of a few dozen. When a budget is spent, whole slabs go to Zarr arrays in a scratch folder: those
of the image first, which nothing needs before the basis is finished. Zarr, and not a memory-mapped file, because mapped
pages count as this process's memory until the kernel takes them back, and because a chunk brings its checksum with it.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from advntk_dist.errors import SolverError, StoreDamagedError
from advntk_dist.grid import spans

Array = NDArray[np.float64]

SLAB = 64
"""Columns of a slab, at most."""

SCRATCH_PREFIX = "krylov-"
"""What names of folders of spilled slabs begin with; a process that is killed leaves its own behind."""

_CHUNK_BYTES = 4 * 2**20


class ColumnBudget:
    """Memory that the columns of one basis share.

    Parameters
    ----------
    nbytes
        Bytes that slabs may take in memory; None for no limit.
    scratch
        Folder for what does not fit; the system's temporary folder by default. It is made when it is needed, and
        what was spilled is deleted with the basis.
    """

    def __init__(self, nbytes: int | None = None, scratch: Path | None = None) -> None:
        self.nbytes, self.scratch = nbytes, scratch
        self._members: list[weakref.ref[Columns]] = []  # weak, or spilled slabs would outlive their basis
        self.spilled_bytes = 0
        """Bytes written to the scratch folder so far."""
        self._folder: Path | None = None
        self._count = 0

    def slab_width(self, n: int) -> int:
        """Columns of a slab for vectors of n entries: at least eight slabs fit, if columns are that small."""
        if self.nbytes is None:
            return SLAB
        return max(1, min(SLAB, self.nbytes // (8 * 8 * n)))

    def add(self, columns: Columns) -> None:
        """Let columns share the memory; those that were added last are spilled first."""
        self._members.append(weakref.ref(columns))

    def make_room(self, wanted: int) -> None:
        """Spill slabs until ``wanted`` more bytes fit, or none is left to spill."""
        if self.nbytes is None:
            return
        members = [columns for reference in reversed(self._members) if (columns := reference()) is not None]
        while sum(columns.held_bytes for columns in members) + wanted > self.nbytes:
            owner = next((columns for columns in members if columns.can_spill), None)
            if owner is None:
                return
            owner.spill()

    def new_array(self, shape: tuple[int, int]) -> zarr.Array[Any]:
        """An empty array in the scratch folder, in chunks of whole rows."""
        if self._folder is None:
            if self.scratch is not None:
                self.scratch.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=self.scratch))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._count += 1
        rows = max(1, min(shape[0], _CHUNK_BYTES // (8 * shape[1])))
        return zarr.create_array(
            self._folder / f"{self._count}.zarr",
            shape=shape,
            chunks=(rows, shape[1]),
            dtype="float64",
            compressors=[Crc32cCodec()],
            fill_value=float("nan"),
        )

    @property
    def where(self) -> str:
        """The scratch folder, for messages."""
        return str(self._folder or self.scratch or tempfile.gettempdir())


class Columns:
    """A tall matrix (n, m) that grows by columns.

    Parameters
    ----------
    n
        Rows.
    budget
        The memory that it shares with others.
    """

    def __init__(self, n: int, budget: ColumnBudget | None = None) -> None:
        self.n, self.m = n, 0
        self.budget = budget or ColumnBudget()
        self.budget.add(self)
        self._width = self.budget.slab_width(n)
        self._slabs: list[Array | zarr.Array[Any]] = []

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.n, self.m

    @property
    def held_bytes(self) -> int:
        """Bytes of the slabs in memory."""
        return sum(slab.nbytes for slab in self._slabs if isinstance(slab, np.ndarray))

    @property
    def can_spill(self) -> bool:
        """Whether a full slab is in memory."""
        return any(isinstance(slab, np.ndarray) for slab in self._slabs[: self.m // self._width])

    def append(self, block: Array) -> None:
        """Add the columns of block (n, r)."""
        taken = 0
        while taken < block.shape[1]:
            place, offset = divmod(self.m, self._width)
            if place == len(self._slabs):
                self.budget.make_room(8 * self.n * self._width)
                self._slabs.append(np.empty((self.n, self._width)))
            slab = self._slabs[place]
            assert isinstance(slab, np.ndarray), "only full slabs are spilled"
            count = min(self._width - offset, block.shape[1] - taken)
            slab[:, offset : offset + count] = block[:, taken : taken + count]
            taken, self.m = taken + count, self.m + count

    def spill(self) -> None:
        """Write the first full slab that is in memory to the scratch folder.

        Raises
        ------
        SolverError
            If it cannot be written.
        """
        place = next(i for i, slab in enumerate(self._slabs) if isinstance(slab, np.ndarray))
        slab = self._slabs[place]
        try:
            array = self.budget.new_array((self.n, self._width))
            for rows in spans(self.n, array.chunks[0]):
                array[rows] = slab[rows]
        except OSError as error:
            raise SolverError(
                f"{self.budget.where}: the Krylov basis does not fit solver.memory, and cannot be written here "
                f"({error.strerror or error}); free the disk, or raise solver.memory"
            ) from error
        self._slabs[place] = array
        self.budget.spilled_bytes += 8 * self.n * self._width

    def _pieces(self) -> Iterator[tuple[slice, slice, Array]]:
        """Rows, columns, and the entries there; spilled slabs come a chunk at a time."""
        for place, slab in enumerate(self._slabs):
            columns = slice(place * self._width, min((place + 1) * self._width, self.m))
            used = columns.stop - columns.start
            if isinstance(slab, np.ndarray):
                yield slice(0, self.n), columns, slab[:, :used]
            else:
                for rows in spans(self.n, slab.chunks[0]):
                    yield rows, columns, self._read(slab, rows)[:, :used]

    def _read(self, slab: zarr.Array[Any], rows: slice) -> Array:
        try:
            values = np.asarray(slab[rows], dtype=np.float64)
        except (OSError, ValueError) as error:
            raise StoreDamagedError(
                f"{self.budget.where}: a part of the Krylov basis that was written here cannot be read ({error}); "
                "check the disk, and run the same command again"
            ) from error
        if not np.isfinite(values).all():
            raise StoreDamagedError(
                f"{self.budget.where}: a part of the Krylov basis that was written here is gone; run the same command "
                "again"
            )
        return values

    def dot(self, block: Array) -> Array:
        """Q^T block, (m, r)."""
        out = np.zeros((self.m, block.shape[1]))
        for rows, columns, values in self._pieces():
            out[columns] += values.T @ block[rows]
        return out

    def subtract(self, block: Array, small: Array) -> None:
        """Take Q small off block (n, r), in place."""
        for rows, columns, values in self._pieces():
            block[rows] -= values @ small[columns]

    def times(self, small: Array) -> Array:
        """Q small, (n, r), for small (j, r) with the first j columns of Q; j <= m."""
        out = np.zeros((self.n, small.shape[1]))
        for rows, columns, values in self._pieces():
            factor = small[columns]
            if columns.start == 0:
                np.matmul(values[:, : len(factor)], factor, out=out[rows])
            elif len(factor):
                out[rows] += values[:, : len(factor)] @ factor
        return out

    def rows(self, span: slice) -> Array:
        """The given rows, (rows, m)."""
        out = np.empty((span.stop - span.start, self.m))
        for place, slab in enumerate(self._slabs):
            columns = slice(place * self._width, min((place + 1) * self._width, self.m))
            values = slab[span] if isinstance(slab, np.ndarray) else self._read(slab, span)
            out[:, columns] = values[:, : columns.stop - columns.start]
        return out

    def dense(self) -> Array:
        """All of it as one array (n, m)."""
        return self.rows(slice(0, self.n))
