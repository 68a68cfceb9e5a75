"""The values of one tile, of one or both kernels, in blocks of one shape, and the images that they are of."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import jax
import numpy as np
from numpy.typing import NDArray

from advntk_dist.data.dataset import to_unit_range
from advntk_dist.errors import GramBuildError
from advntk_dist.grid import TileGrid, mirror, spans
from advntk_dist.kernels.compiled import pad_rows
from advntk_dist.kernels.nonfinite import some
from advntk_dist.kernels.scope import kernel_scope, tile_compiler_options

if TYPE_CHECKING:
    from advntk_dist.kernels.backend import KernelKind
    from advntk_dist.networks import Network


def block_edge(tile: int, limit: int) -> int:
    """Edge of the blocks that a tile is cut into: equal parts of at most ``limit``, so that little is padded."""
    return -(-tile // len(spans(tile, limit)))


class TileComputer:
    """Tiles of one store, whole or ragged, by a single compiled function.

    All kernels are computed in one pass: traced together, XLA keeps one copy of what they share. On one kind of
    processor values depend on nothing but images, network, dtype and tile, to the last bit; other kinds of processors
    agree to rounding.

    Parameters
    ----------
    net
        The network.
    tile
        Edge of a whole tile.
    kinds
        Kernels to compute, "ntk", "nngp" or both.
    image_shape, dtype
        Of the images; dtype is also that of the values.
    """

    def __init__(
        self, net: Network, tile: int, kinds: tuple[str, ...], image_shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self.kinds, self.dtype = kinds, dtype
        self.edge = block_edge(tile, net.compiled.block_edge(image_shape, dtype.itemsize))

        def block(a: jax.Array, b: jax.Array) -> tuple[jax.Array, ...]:
            prepared = net.backend.prepare(b)
            return tuple(net.backend.tile(a, prepared, cast("KernelKind", kind)) for kind in kinds)

        self._block = jax.jit(block, compiler_options=tile_compiler_options())

    def warm_up(self, rows: NDArray[Any], cols: NDArray[Any]) -> float:
        """Compile on one block of real images, and return the seconds that an entry then takes."""
        self(rows[: self.edge], cols[: self.edge], symmetric=False)
        started = time.perf_counter()
        self(rows[: self.edge], cols[: self.edge], symmetric=False)
        return (time.perf_counter() - started) / self.edge**2

    def __call__(
        self, rows: NDArray[Any], cols: NDArray[Any], *, symmetric: bool, into: dict[str, NDArray[Any]] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Kernel values (len(rows), len(cols)) of float images, by kind.

        Parameters
        ----------
        rows, cols
            Images (m, H, W, C) and (n, H, W, C).
        symmetric
            They are the same images: blocks below the diagonal are mirrored, and the result is symmetric to the
            last bit.
        into
            Arrays (m, n) to write to; new ones by default.
        """
        shape = (len(rows), len(cols))
        out = into or {kind: np.empty(shape, self.dtype) for kind in self.kinds}
        with kernel_scope():
            for t in TileGrid(len(rows), len(cols), self.edge, symmetric=symmetric):
                blocks = self._block(pad_rows(rows[t.rows], self.edge), pad_rows(cols[t.cols], self.edge))
                for values, block in zip(out.values(), blocks, strict=True):
                    values[t.rows, t.cols] = np.asarray(block)[: t.shape[0], : t.shape[1]]
        if symmetric:
            for values in out.values():
                mirror(values)
        return out


"""Added to the numbers of column images that are not the row images."""


def compute_images(images: NDArray[Any], tile: int, dtype: str) -> NDArray[Any]:
    """Images as floats in [-0.5, 0.5] of the dtype that kernels are computed in; uint8 is scaled in that dtype.

    Raises
    ------
    GramBuildError
        If an image holds values that are not finite; the message names images and tiles.
    DatasetError
        If the images are of another dtype or out of range.
    """
    if np.issubdtype(images.dtype, np.floating):
        bad = [k for k, image in enumerate(images) if not np.isfinite(image).all()]
        if bad:
            tiles = sorted({k // tile for k in bad})
            raise GramBuildError(
                f"image {some([str(k) for k in bad])}: not finite, which would spoil the tiles of row and column "
                f"{some([str(t) for t in tiles])}; mend or drop it"
            )
    elif images.dtype == np.uint8 and dtype == "float64":
        return images.astype(np.float64) / 255.0 - 0.5
    return to_unit_range(images).astype(dtype, copy=False)
