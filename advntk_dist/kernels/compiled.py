"""Jitted kernel functions over whole matrices: padded blocks, so that nothing compiles twice for a shape."""

from __future__ import annotations

import time
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from advntk_dist.grid import TileGrid, mirror, spans
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
        self._predict = jit(lambda x, p, c: values(backend, x, p, c)[0])
        self._pull_back = jit(lambda x, p, c, u: gradient(backend, x, p, c, u))

    def block_edge(self, image_shape: tuple[int, ...], itemsize: int, *, limit: int = 1024) -> int:
        """Edge of a square block of pairs that fits BLOCK_BYTES: a power of two, at most ``limit``."""
        pixels = image_shape[0] * image_shape[1] if self.per_pixel else 1
        edge = (BLOCK_BYTES / (pixels * itemsize * _ARRAYS_PER_PAIR)) ** 0.5
        return int(min(limit, 2 ** max(3, int(np.log2(edge)))))

    def block_of(self, n: int, batch: int, image_shape: tuple[int, ...], itemsize: int, memory: int) -> int:
        """Rows of equal blocks of n right-hand images, whose pairs with ``batch`` left-hand ones fit ``memory`` bytes.

        A multiple of 8, or of 64 for thousands of images, so that backends find equal parts of a block.
        """
        pixels = image_shape[0] * image_shape[1] if self.per_pixel else 1
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
            that one function serves them all. By default the next power of two that takes both x1 and x2.
        into
            Arrays (m, n) by kind to write to; new ones by default.
        checked
            Whether values that are not finite are refused here.

        Raises
        ------
        GramBuildError
            With ``checked``, if a value is not finite; the message names the images.
        """
        edge = self._edge(x1, x2, tile)
        out = into or {kind: np.empty((len(x1), len(x2)), x1.dtype) for kind in kinds}
        with kernel_scope():
            for t in TileGrid(len(x1), len(x2), edge, symmetric=symmetric):
                blocks = self._block(pad_rows(x1[t.rows], edge), pad_rows(x2[t.cols], edge), kinds)
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
        edge = self._edge(x1, x2, tile)
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
        edge = self._edge(x1, x2)
        out, grad = np.empty((len(x1), len(x2)), x1.dtype), np.zeros_like(x1)
        with kernel_scope():
            for t in TileGrid(len(x1), len(x2), edge):
                w = np.zeros((edge, edge), x1.dtype)
                w[: t.shape[0], : t.shape[1]] = weight[t.rows, t.cols]
                block, g = self._tile_vjp(pad_rows(x1[t.rows], edge), pad_rows(x2[t.cols], edge), w)
                out[t.rows, t.cols] = np.asarray(block)[: t.shape[0], : t.shape[1]]
                require_finite("ntk", t, out[t.rows, t.cols], symmetric=False)
                grad[t.rows] += np.asarray(g)[: t.shape[0]]
        return out, grad

    def _edge(self, x1: NDArray[Any], x2: NDArray[Any], tile: int | None = None) -> int:
        """Rows and columns of the blocks of a matrix; for small ones a power of two, so that few shapes occur."""
        whole = 2 ** int(np.ceil(np.log2(max(len(x1), len(x2), 1)))) if tile is None else tile
        return block_edge(whole, self.block_edge(x1.shape[1:], x1.itemsize))

    def prepare(self, x: NDArray[Any], block: int) -> Prepared:
        """Right-hand images as a stack of prepared blocks, a pytree of arrays (blocks, block, ...)."""
        with kernel_scope():
            parts = [self._prepare(pad_rows(x[s], block)) for s in spans(len(x), block)]
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)

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


@lru_cache(maxsize=64)
def compiled_kernel(backend: KernelBackend, per_pixel: bool, repeatable: bool = False) -> CompiledKernel:
    """The functions of a backend, the same for all networks that have it: kernels do not depend on their outputs."""
    return CompiledKernel(backend, per_pixel=per_pixel, repeatable=repeatable)
