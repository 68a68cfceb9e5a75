"""What a build will take, estimated and checked before the first tile."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from advntk_dist.errors import RequestError
from advntk_dist.gram.fingerprint import Fingerprint
from advntk_dist.grid import Tile, TileGrid
from advntk_dist.kernels.compiled import BLOCK_BYTES
from advntk_dist.storage.durable import CRC_BYTES
from advntk_dist.text import size

BASE_BYTES = 640 * 2**20
"""Memory of a worker before its first tile: Python, JAX, Ray and a compiled kernel (480 MiB measured for mlp-5)."""

_FILE_BYTES = 4096
"""A commit record takes one block of the file system."""

_METADATA_BYTES = 8 * _FILE_BYTES
"""The zarr.json files of a store."""

_TILES_IN_MEMORY = 8
"""Tiles' worth of memory: two computed at once, and one being written as values, padded, encoded and read back."""


@dataclass(frozen=True)
class GramPlan:
    """The expected cost of a build. Bytes and seconds.

    Attributes
    ----------
    tiles
        Tiles to compute, out of ``tiles_total``.
    pairs
        Kernel entries to compute of each kind.
    disk_bytes
        Bytes by which the store will still grow on disk.
    worker_bytes
        Peak memory of one worker in bytes, without the images.
    image_bytes
        Bytes of the images as floats, which are once on each machine in shared memory.
    workers
        Workers that share the tiles.
    seconds
        Expected time once workers run; None before a worker has measured its speed.
    """

    tiles: int
    tiles_total: int
    pairs: int
    disk_bytes: int
    worker_bytes: int
    image_bytes: int
    workers: int
    seconds: float | None = None

    @property
    def memory_bytes(self) -> int:
        """Peak memory of the build on one machine: all workers, the shared images and the driver's own copy."""
        return self.workers * self.worker_bytes + 2 * self.image_bytes

    def __str__(self) -> str:
        time = "time not measured yet" if self.seconds is None else f"about {self.seconds:.0f} s"
        return (
            f"{self.tiles} of {self.tiles_total} tiles to compute ({self.pairs:,} pairs of images), "
            f"{size(self.disk_bytes)} on disk, {self.workers} workers of at most {size(self.worker_bytes)} "
            f"and {size(self.image_bytes)} of images each machine, {time}"
        )

    def check_disk(self, path: Path) -> None:
        """Raise RequestError if the disk that the store at ``path`` is on has too little space."""
        free = free_disk(path)
        if self.disk_bytes > free:
            raise RequestError(
                f"{path}: the store needs {size(self.disk_bytes)} more on disk, {size(free)} are free; free some, "
                "or give an --out on another disk"
            )

    def check_memory(self) -> None:
        """Raise RequestError if this machine has too little memory for all the workers."""
        available = free_memory()
        if self.memory_bytes > available:
            raise RequestError(
                f"the build needs {size(self.memory_bytes)} of memory ({self.workers} workers of "
                f"{size(self.worker_bytes)}, images {size(self.image_bytes)}), {size(available)} are available; "
                "set a smaller gram.tile or fewer gram.workers"
            )


def plan_gram(fingerprint: Fingerprint, *, workers: int, missing: Sequence[Tile] | None = None) -> GramPlan:
    """Plan the build of a store, of which nothing has to exist yet.

    Parameters
    ----------
    fingerprint
        Fingerprint of the store, from :func:`advntk_dist.gram.fingerprint.make_fingerprint`.
    workers
        Workers that will share the tiles.
    missing
        Tiles to compute; all tiles of the store by default.
    """
    tile, n, across = fingerprint["gram.tile"], fingerprint["n"], fingerprint["n_columns"]
    symmetric, kinds = fingerprint["columns"] is None, len(fingerprint["kinds"])
    grid = TileGrid(n, across, tile, symmetric=symmetric)
    tiles = list(grid) if missing is None else missing
    itemsize = np.dtype(fingerprint["gram.dtype"]).itemsize
    image = math.prod(fingerprint["image_shape"]) * itemsize
    tile_bytes = tile**2 * itemsize
    chunk = -(-(tile_bytes + CRC_BYTES) // _FILE_BYTES) * _FILE_BYTES
    blocks = BLOCK_BYTES + 4 * min(tile, 1024) * image
    return GramPlan(
        tiles=len(tiles),
        tiles_total=len(grid),
        pairs=sum(t.shape[0] * t.shape[1] for t in tiles),
        disk_bytes=len(tiles) * kinds * (chunk + _FILE_BYTES) + _METADATA_BYTES,
        worker_bytes=BASE_BYTES + _TILES_IN_MEMORY * kinds * tile_bytes + blocks,
        image_bytes=(n + (0 if symmetric else across)) * image,
        workers=workers,
    )


def free_disk(path: Path) -> int:
    """Free bytes on the disk that ``path`` is or would be on."""
    folder = path
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def free_memory() -> int:
    """Bytes of memory that can still be used: what the system calls available, and a container's limit on Linux."""
    limits = [int(psutil.virtual_memory().available)]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        if os.path.exists(limit) and os.path.exists(used):
            text = Path(limit).read_text().strip()
            if text.isdigit():
                limits.append(int(text) - int(Path(used).read_text()))
    return max(0, min(limits))
