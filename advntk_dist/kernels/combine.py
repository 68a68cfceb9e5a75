"""Kernel predictions K(x, X) c and their input gradients over all training images, block by prepared block.

Traceable: attacks put many of them into one device program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from advntk_dist.kernels.backend import CombiningTiles, JacobianTiles, Prepared, TileKernels

Residuals = Any
"""What a value pass leaves for the gradient at the same images, stacked block by block; None if nothing."""

_State = TypeVar("_State")


def values(
    backend: TileKernels, x: jax.Array, prepared: Prepared, coefficients: jax.Array, *, budget: int = 0
) -> tuple[jax.Array, Residuals]:
    """K c in float64, (b, k), and what the gradient can reuse.

    Parameters
    ----------
    backend
        Backend of the kernel.
    x
        Images (b, H, W, C).
    prepared, coefficients
        Training images as stacked prepared blocks (blocks, block, ...), and c (blocks, block, k) in float64.
    budget
        Bytes that the residuals may take; where they would take more, :func:`gradient` computes them again.
    """

    def block(total: jax.Array, part: tuple[Prepared, jax.Array]) -> tuple[jax.Array, Residuals]:
        value, residual = combine(backend, x, *part)
        blocks = coefficients.shape[0]
        fits = blocks * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residual)) <= budget
        return total + value, residual if fits else None

    start = jnp.zeros((x.shape[0], coefficients.shape[-1]), jnp.float64)
    return _over_blocks(block, start, (prepared, coefficients))


def gradient(
    backend: TileKernels,
    x: jax.Array,
    prepared: Prepared,
    coefficients: jax.Array,
    cotangent: jax.Array,
    residuals: Residuals = None,
) -> jax.Array:
    """d sum(cotangent * K c) / d x, shaped as x, for a cotangent (b, k) in float64.

    ``residuals`` are those of :func:`values` at the same x; the other arguments are as there.
    """

    def block(total: jax.Array, part: tuple[Prepared, jax.Array, Residuals]) -> tuple[jax.Array, None]:
        right, c, residual = part
        return total + combine_vjp(backend, x, right, c, cotangent, residual), None

    return _over_blocks(block, jnp.zeros_like(x), (prepared, coefficients, residuals))[0]


def values_and_jacobian(
    backend: TileKernels,
    x: jax.Array,
    prepared: Prepared,
    coefficients: jax.Array,
    entries: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """K c in float64, (b, k), and its derivatives in x, (b, k, H, W, C) in the dtype of x, from one pass.

    Arguments are those of :func:`values`. With ``entries`` (p,), indices of pixels of a flat image, the derivatives in
    these alone, (b, k, p).
    """

    def block(
        total: tuple[jax.Array, jax.Array], part: tuple[Prepared, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        value, slopes = combine_jacobian(backend, x, *part, entries)
        return (total[0] + value, total[1] + slopes), None

    b, k = x.shape[0], coefficients.shape[-1]
    pixels = x[0].size if entries is None else entries.size
    start = jnp.zeros((b, k), jnp.float64), jnp.zeros((b, k, pixels), x.dtype)
    value, slopes = _over_blocks(block, start, (prepared, coefficients))[0]
    return value, slopes if entries is not None else slopes.reshape(b, k, *x.shape[1:])


def combine(
    backend: TileKernels, x: jax.Array, prepared: Prepared, coefficients: jax.Array
) -> tuple[jax.Array, Residuals]:
    """The backend's own ``combine``, or that of a backend that has none."""
    if isinstance(backend, CombiningTiles):
        return backend.combine(x, prepared, coefficients)
    return backend.tile(x, prepared, "ntk").astype(jnp.float64) @ coefficients, None


def combine_vjp(
    backend: TileKernels,
    x: jax.Array,
    prepared: Prepared,
    coefficients: jax.Array,
    cotangent: jax.Array,
    residual: Residuals = None,
) -> jax.Array:
    """The backend's own ``combine_vjp``, or that of a backend that has none."""
    if isinstance(backend, CombiningTiles):
        return backend.combine_vjp(x, prepared, coefficients, cotangent, residual)
    return backend.tile_vjp(x, prepared, (cotangent @ coefficients.T).astype(x.dtype))[1]


def combine_jacobian(
    backend: TileKernels,
    x: jax.Array,
    prepared: Prepared,
    coefficients: jax.Array,
    entries: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The backend's own ``combine_jacobian`` or, of one that has none, one pull-back for each output."""
    if isinstance(backend, JacobianTiles):
        return backend.combine_jacobian(x, prepared, coefficients, entries)

    def output(c: jax.Array) -> tuple[jax.Array, jax.Array]:
        tile, slope = backend.tile_vjp(x, prepared, jnp.broadcast_to(c.astype(x.dtype), (x.shape[0], c.shape[0])))
        return tile.astype(jnp.float64) @ c, slope.reshape(x.shape[0], -1)

    value, slopes = jax.lax.map(output, coefficients.T)
    flat = jnp.moveaxis(slopes, 0, 1)
    return value.T, flat if entries is None else flat[..., entries]


def _over_blocks(block: Callable[[_State, Any], tuple[_State, Any]], start: _State, stacked: Any) -> tuple[_State, Any]:
    """``lax.scan``, but a single block is used where it lies: a loop would copy its images out of the stack."""
    if jax.tree.leaves(stacked)[0].shape[0] > 1:
        return jax.lax.scan(block, start, stacked)
    state, out = block(start, jax.tree.map(lambda a: a[0], stacked))
    return state, jax.tree.map(lambda a: a[None], out)
