"""Jitted kernel functions over whole matrices: padded blocks of few shapes, so that little compiles."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from advntk_dist.grid import Tile, TileGrid, mirror, spans
from advntk_dist.kernels.backend import CombiningTiles, KernelBackend, KernelKind, Prepared
from advntk_dist.kernels.combine import gradient, values
from advntk_dist.kernels.nonfinite import require_finite
from advntk_dist.kernels.scope import compiler_options, kernel_scope, tile_compiler_options

BLOCK_BYTES = 256 * 2**20
"""Working memory that one jitted block may take, in bytes; sets how many pairs go through at once."""

_ARRAYS_PER_PAIR = 8
"""Arrays of a pair's size alive at once in a forward and backward pass (kernel, NTK, cosines, cotangents)."""

_ARRAYS_COMBINED = 4
"""Arrays of a pair's size alive at once in backends that combine tiles with coefficients part by part."""

_SIGNIFICANT_BITS = 5
"""Of the edges of blocks: 1, 2, ... 31, 32, 34, ... 62, 64, 68, ..., 112 of them up to 1,024."""

_PER_IMAGE, _PER_IMAGE_OF_PIXELS = 40, 2
"""What an image of a block costs beside its pairs (transfer, norms), in pairs; the second of convolutions."""

_PER_CALL, _PER_CALL_OF_PIXELS = 3000, 20_000
"""What a call costs, in pairs; of convolutions in pixels of pairs."""

_LONGEST = 1024
"""Longest edge of a block."""

_LANES = 16
"""Pairs that a vector register takes: a block of convolutions costs as if its longer side were a multiple of it."""

_NEARLY = 1.04
"""Share of the lowest cost, beside two calls, at which edges of fewer significant bits are taken."""


def pad_rows(x: NDArray[Any], rows: int) -> NDArray[Any]:
    """Repeat the first image until there are ``rows`` of them.

    A copy of a real image, not zeros: kernels are well behaved on it, and its results are cut off again.
    """
    if len(x) == rows:
        return x
    return np.concatenate([x, np.broadcast_to(x[:1], (rows - len(x), *x.shape[1:]))])


def stack_blocks(x: NDArray[Any], block: int) -> NDArray[Any]:
    """Cut rows into equal blocks (blocks, block, ...), the last one padded by :func:`pad_rows`."""
    return np.stack([pad_rows(x[s], block) for s in spans(len(x), block)])


def block_edge(tile: int, limit: int) -> int:
    """Edge of the blocks that a tile is cut into: equal parts of at most ``limit``, so that little is padded."""
    return -(-tile // len(spans(tile, limit)))


@lru_cache(maxsize=4096)
def block_shape(m: int, n: int, limit: int, pixels: int = 1, *, square: bool = False) -> tuple[int, int]:
    """Rows and columns of the equal blocks that an (m, n) matrix is padded to and cut into.

    A request has blocks of one shape, so that it compiles one function. Of all shapes with as many pairs as a square
    of edge ``limit`` at most, and edges of five significant bits (up to ``limit``, or multiples of it), the one with
    the lowest cost is taken, or one of fewer significant bits that costs hardly more: powers of two first, which
    requests share. So at most 112 x 112 shapes exist for a limit of 1,024, and the usual ones are few: (1024, 1024) for
    all large matrices, (128, 1024) for 128 images against thousands.

    Parameters
    ----------
    m, n
        Shape of the matrix.
    limit
        Edge of the largest square.
    pixels
        Numbers that an array of a pair holds: pixels of an image for convolutions, 1 for MLPs.
    square
        Whether only squares are looked at.
    """
    every, significant = _edges(limit)
    down, across = (np.ceil(size / every) for size in (m, n))
    height, width = every[:, None], every[None]
    pairs = height * width
    image, call = _PER_IMAGE, float(_PER_CALL)
    if pixels > 1:
        image, call = _PER_IMAGE_OF_PIXELS, _PER_CALL_OF_PIXELS / pixels
        pairs = np.minimum(height, width) * _LANES * np.ceil(np.maximum(height, width) / _LANES)
    blocks = down[:, None] * across[None]
    cost = blocks * (pairs + image * (height + width) + call)
    cost[height * width > limit**2] = np.inf
    if square:
        cost[height != width] = np.inf
    bits = np.where(
        cost <= _NEARLY * cost.min() + 2 * call, np.maximum(significant[:, None], significant[None]), np.inf
    )
    i, j = np.unravel_index(np.argmin(np.where(bits == bits.min(), cost, np.inf)), cost.shape)
    return int(every[i]), int(every[j])


@cache
def _edges(limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges up to ``limit``, and multiples of it up to _LONGEST; and the significant bits of each."""
    every = np.arange(1, max(limit, _LONGEST) + 1)
    bits = np.log2(every // (every & -every)).astype(np.int64) + 1
    taken = (bits <= _SIGNIFICANT_BITS) & ((every <= limit) | (every % limit == 0))
    return every[taken], bits[taken]


class CompiledKernel:
    """A backend's functions, jitted, over matrices of any size.

    Parameters
    ----------
    backend
        Backend of the kernels.
    per_pixel
        Whether a pair of images needs arrays over its pixels (convolutions) or single numbers (MLPs).
    repeatable
        Whether matrix products stay in one thread. Values then depend on nothing but images, network, dtype and block
        edge, to the last bit, on one kind of processor; other kinds of processors agree to rounding.
    """

    def __init__(self, backend: KernelBackend, *, per_pixel: bool, repeatable: bool = False) -> None:
        self.backend = backend
        self.per_pixel = per_pixel
        jit = partial(jax.jit, compiler_options=tile_compiler_options() if repeatable else compiler_options())

        def block(a: jax.Array, b: jax.Array, kinds: tuple[KernelKind, ...]) -> tuple[jax.Array, ...]:
            prepared = backend.prepare(b)  # traced together, XLA keeps one copy of what the kernels share
            return tuple(backend.tile(a, prepared, kind) for kind in kinds)

        self._prepare = jit(backend.prepare)
        self._block = jit(block, static_argnums=2)
        self._tile_vjp = jit(lambda a, b, w: backend.tile_vjp(a, backend.prepare(b), w))
        self._rows = jit(lambda x, prepared: jax.lax.map(lambda part: backend.tile(x, part, "ntk"), prepared))
        self._predict = jit(lambda x, p, c: values(backend, x, p, c)[0])
        self._pull_back = jit(lambda x, p, c, u: gradient(backend, x, p, c, u))

    def block_edge(self, image_shape: tuple[int, ...], itemsize: int, *, limit: int = _LONGEST) -> int:
        """Edge of a square block of pairs that fits BLOCK_BYTES: a power of two, at most ``limit``."""
        pixels = self._pixels(image_shape)
        edge = (BLOCK_BYTES / (pixels * itemsize * _ARRAYS_PER_PAIR)) ** 0.5
        return int(min(limit, 2 ** max(3, int(np.log2(edge)))))

    def block_of(self, n: int, batch: int, image_shape: tuple[int, ...], itemsize: int, memory: int) -> int:
        """Rows of equal blocks of n right-hand images, whose pairs with ``batch`` left-hand ones fit ``memory`` bytes.

        A multiple of 8, or of 64 for thousands of images, so that backends find equal parts of a block.
        """
        pixels = self._pixels(image_shape)
        if isinstance(self.backend, CombiningTiles):
            most = memory // (pixels * itemsize * _ARRAYS_COMBINED * batch)
        else:  # their arrays of a block leave the cache early: larger blocks are slower, not faster
            most = min(memory, BLOCK_BYTES // 2) // (pixels * itemsize * _ARRAYS_PER_PAIR * batch)
        most = max(8, most)
        blocks = -(-n // most)
        multiple = 64 if n > 4096 else 8
        return -(-n // (multiple * blocks)) * multiple

    def matrices(
        self,
        x1: NDArray[Any],
        x2: NDArray[Any],
        kinds: tuple[KernelKind, ...],
        *,
        symmetric: bool = False,
        tile: int | None = None,
        into: dict[str, NDArray[Any]] | None = None,
        checked: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Kernel values (m, n) of float images, by kind, in the dtype of the images; all kinds in one pass.

        Parameters
        ----------
        x1, x2
            Images (m, H, W, C) and (n, H, W, C), of one dtype.
        kinds
            Kernels to compute, each once.
        symmetric
            Whether x1 and x2 are the same images: blocks below the diagonal are mirrored, and the result is symmetric
            to the last bit.
        tile
            Edge in images of the whole tile that this is one of: the blocks of ragged tiles are those of whole ones, so
            that one function serves them all. By default :func:`block_shape` has the blocks.
        into
            Arrays (m, n) by kind to write to; new ones by default.
        checked
            Whether values that are not finite are refused here.

        Raises
        ------
        GramBuildError
            With ``checked``, if a value is not finite; the message names the images.
        """
        grid = self._grid(x1, x2, tile, symmetric=symmetric)
        out = into or {kind: np.empty((len(x1), len(x2)), x1.dtype) for kind in kinds}
        with kernel_scope():
            for t, left, right in _padded(grid, x1, x2):
                blocks = self._block(left, right, kinds)
                for (kind, values), block in zip(out.items(), blocks, strict=True):
                    values[t.rows, t.cols] = np.asarray(block)[: t.shape[0], : t.shape[1]]
                    if checked:
                        require_finite(kind, t, values[t.rows, t.cols], symmetric=symmetric)
        if symmetric:
            for values in out.values():
                mirror(values)
        return out

    def matrix(self, x1: NDArray[Any], x2: NDArray[Any], kind: KernelKind, *, symmetric: bool = False) -> NDArray[Any]:
        """One kernel of :meth:`matrices`, (m, n).

        Raises
        ------
        GramBuildError
            If a value is not finite, as in a build; the message names the images.
        """
        return self.matrices(x1, x2, (kind,), symmetric=symmetric, checked=True)[kind]

    def warm_up(self, x1: NDArray[Any], x2: NDArray[Any], kinds: tuple[KernelKind, ...], *, tile: int) -> float:
        """Compile :meth:`matrices` on one block of real images, and return the seconds that a pair of images takes."""
        edge = self._grid(x1, x2, tile).tile
        self.matrices(x1[:edge], x2[:edge], kinds, tile=tile)
        started = time.perf_counter()
        self.matrices(x1[:edge], x2[:edge], kinds, tile=tile)
        return (time.perf_counter() - started) / edge**2

    def matrix_vjp(self, x1: NDArray[Any], x2: NDArray[Any], weight: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """NTK (m, n), and d sum(weight * NTK) / d x1 for float images and a weight (m, n) of one dtype.

        Raises
        ------
        GramBuildError
            If a value of the NTK is not finite, as in a build; the message names the images.
        """
        grid = self._grid(x1, x2)
        out, grad = np.empty((len(x1), len(x2)), x1.dtype), np.empty_like(x1)
        with kernel_scope():
            for t, left, right in _padded(grid, x1, x2):
                w = np.zeros((grid.tile, grid.across), x1.dtype)
                w[: t.shape[0], : t.shape[1]] = weight[t.rows, t.cols]
                block, g = self._tile_vjp(left, right, w)
                out[t.rows, t.cols] = np.asarray(block)[: t.shape[0], : t.shape[1]]
                require_finite("ntk", t, out[t.rows, t.cols], symmetric=False)
                share = np.asarray(g)[: t.shape[0]]
                grad[t.rows] = share if t.j == 0 else grad[t.rows] + share
        return out, grad

    def _pixels(self, image_shape: tuple[int, ...]) -> int:
        """Numbers that an array of a pair of images holds."""
        return image_shape[0] * image_shape[1] if self.per_pixel else 1

    def _grid(
        self, x1: NDArray[Any], x2: NDArray[Any], tile: int | None = None, *, symmetric: bool = False
    ) -> TileGrid:
        """Blocks of a matrix: squares in a whole tile or a symmetric matrix, rectangles elsewhere."""
        limit = self.block_edge(x1.shape[1:], x1.itemsize)
        if tile is not None:
            return TileGrid(len(x1), len(x2), block_edge(tile, limit), symmetric=symmetric)
        height, width = block_shape(len(x1), len(x2), limit, self._pixels(x1.shape[1:]), square=symmetric)
        return TileGrid(len(x1), len(x2), height, symmetric=symmetric, width=width)

    def prepare(self, x: NDArray[Any], block: int) -> Prepared:
        """Right-hand images as a stack of prepared blocks, a pytree of arrays (blocks, block, ...)."""
        with kernel_scope():
            parts = [self._prepare(pad_rows(x[s], block)) for s in spans(len(x), block)]
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)

    def rows(self, x: NDArray[Any], prepared: Prepared) -> NDArray[Any]:
        """NTK (blocks, b, block) of images x (b, H, W, C) with prepared ones."""
        with kernel_scope():
            return np.asarray(self._rows(x, prepared))

    def predict(self, x: NDArray[Any], prepared: Prepared, coefficients: jax.Array) -> NDArray[np.float64]:
        """K(x, prepared) c in float64: x (b, H, W, C), coefficients (blocks, block, k) float64 -> (b, k)."""
        with kernel_scope():
            return np.asarray(self._predict(x, prepared, coefficients))

    def pull_back(
        self, x: NDArray[Any], prepared: Prepared, coefficients: jax.Array, cotangent: NDArray[np.float64]
    ) -> NDArray[Any]:
        """d sum(cotangent * K(x, prepared) c) / d x, in the dtype of x, for a cotangent (b, k)."""
        with kernel_scope():
            return np.asarray(self._pull_back(x, prepared, coefficients, cotangent))


def _padded(grid: TileGrid, x1: NDArray[Any], x2: NDArray[Any]) -> Iterator[tuple[Tile, jax.Array, jax.Array]]:
    """The blocks of a grid with their images, padded to whole blocks; images stay on the device for the next block."""
    there: list[tuple[slice | None, Any]] = [(None, None), (None, None)]
    for t in grid:
        for side, (x, rows, size) in enumerate(((x1, t.rows, grid.tile), (x2, t.cols, grid.across))):
            if there[side][0] != rows:
                there[side] = rows, jax.device_put(pad_rows(x[rows], size))
        yield t, there[0][1], there[1][1]


@lru_cache(maxsize=64)
def compiled_kernel(backend: KernelBackend, per_pixel: bool, repeatable: bool = False) -> CompiledKernel:
    """The functions of a backend, the same for all networks that have it: kernels do not depend on their outputs."""
    return CompiledKernel(backend, per_pixel=per_pixel, repeatable=repeatable)
