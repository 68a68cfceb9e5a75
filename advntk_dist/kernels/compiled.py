"""Jitted kernel functions over whole matrices: padded blocks, so that nothing compiles twice for a shape."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from advntk_dist.grid import TileGrid, spans
from advntk_dist.kernels.backend import CombiningTiles, KernelBackend, KernelKind, Prepared
from advntk_dist.kernels.combine import gradient, values
from advntk_dist.kernels.nonfinite import require_finite
from advntk_dist.kernels.scope import compiler_options, kernel_scope

BLOCK_BYTES = 256 * 2**20
"""Working memory that one jitted block may take, in bytes; sets how many pairs go through at once."""

_ARRAYS_PER_PAIR = 8
"""Arrays of a pair's size alive at once in a forward and backward pass (kernel, NTK, cosines, cotangents)."""

_ARRAYS_COMBINED = 4
"""The same for backends that combine tiles with coefficients part by part."""


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


class CompiledKernel:
    """A backend's functions, jitted, over matrices of any size.

    Parameters
    ----------
    backend
        The kernel backend.
    per_pixel
        Whether a pair of images needs arrays over its pixels (convolutions) or single numbers (MLPs).
    """

    def __init__(self, backend: KernelBackend, *, per_pixel: bool) -> None:
        self.backend = backend
        self.per_pixel = per_pixel
        jit = partial(jax.jit, compiler_options=compiler_options())
        self._prepare = jit(backend.prepare)
        self._tile = jit(lambda a, b, kind: backend.tile(a, backend.prepare(b), kind), static_argnums=2)
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

    def matrix(self, x1: NDArray[Any], x2: NDArray[Any], kind: KernelKind, *, symmetric: bool = False) -> NDArray[Any]:
        """Kernel values (m, n) of float images x1 (m, H, W, C), x2 (n, H, W, C), in their dtype.

        With ``symmetric`` x1 and x2 are the same images: blocks below the diagonal are mirrored, and the
        result is symmetric to the last bit.

        Raises
        ------
        GramBuildError
            If a value is not finite, as of a build; the message names the images.
        """
        edge = _edge_for(self.block_edge(x1.shape[1:], x1.itemsize), len(x1), len(x2))
        out = np.empty((len(x1), len(x2)), x1.dtype)
        with kernel_scope():
            for t in TileGrid(len(x1), len(x2), edge, symmetric=symmetric):
                block = self._tile(pad_rows(x1[t.rows], edge), pad_rows(x2[t.cols], edge), kind)
                out[t.rows, t.cols] = np.asarray(block)[: t.shape[0], : t.shape[1]]
                require_finite(kind, t, out[t.rows, t.cols], symmetric=symmetric)
        if symmetric:
            np.copyto(out, out.T, where=np.tri(len(out), k=-1, dtype=bool))
        return out

    def matrix_vjp(self, x1: NDArray[Any], x2: NDArray[Any], weight: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """NTK (m, n), and d sum(weight * NTK) / d x1 for float images and a weight (m, n) of one dtype.

        Raises
        ------
        GramBuildError
            If a value of the NTK is not finite, as of a build; the message names the images.
        """
        edge = _edge_for(self.block_edge(x1.shape[1:], x1.itemsize), len(x1), len(x2))
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
def compiled_kernel(backend: KernelBackend, per_pixel: bool) -> CompiledKernel:
    """The functions of a backend, the same for all networks that have it: kernels do not depend on their outputs."""
    return CompiledKernel(backend, per_pixel=per_pixel)


def _edge_for(edge: int, *sizes: int) -> int:
    """The block edge, made smaller (to a power of two, so that few shapes occur) for small matrices."""
    return min(edge, 2 ** int(np.ceil(np.log2(max(*sizes, 1)))))
