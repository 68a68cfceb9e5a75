"""What a kernel backend offers: traceable functions of whole tiles; and the general backend, neural-tangents."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

KernelKind = Literal["ntk", "nngp"]

Prepared = Any
"""A pytree of arrays whose leading axis is the image: what a backend needs of the right-hand images of a tile."""


class TileKernels(Protocol):
    """Kernel values and input gradients of one tile of image pairs.

    All methods are pure, traceable by ``jax.jit``, ``jax.lax.scan`` and friends, and keep the dtype of the
    images (float32 or float64). They run inside :func:`advntk_dist.kernels.scope.kernel_scope`.
    """

    def prepare(self, x2: jax.Array) -> Prepared:
        """Quantities of the right-hand images (b2, H, W, C) that are reused against many left-hand batches."""
        ...

    def tile(self, x1: jax.Array, prepared: Prepared, kind: KernelKind) -> jax.Array:
        """Kernel values (b1, b2) of images x1 (b1, H, W, C) with the prepared right-hand images."""
        ...

    def tile_vjp(self, x1: jax.Array, prepared: Prepared, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """NTK tile (b1, b2), and d sum(weight * tile) / d x1, shaped as x1, for a weight of shape (b1, b2)."""
        ...


class KernelBackend(TileKernels, Protocol):
    """Tiles with a name that is printed and recorded, equal and hashable by value."""

    @property
    def name(self) -> str:
        """Short name of the backend: "neural-tangents" or "xla"."""
        ...

    def __hash__(self) -> int: ...


@runtime_checkable
class CombiningTiles(TileKernels, Protocol):
    """Tiles of a backend that combines them with coefficients itself, and shares work between value and gradient."""

    def combine(self, x1: jax.Array, prepared: Prepared, coefficients: jax.Array) -> tuple[jax.Array, Any]:
        """NTK tile @ coefficients in float64, (b1, k), for coefficients (b2, k) in float64; and a residual.

        The residual, a pytree of arrays, is what :meth:`combine_vjp` at the same images need not compute again.
        """
        ...

    def combine_vjp(
        self, x1: jax.Array, prepared: Prepared, coefficients: jax.Array, cotangent: jax.Array, residual: Any
    ) -> jax.Array:
        """d sum(cotangent * (tile @ coefficients)) / d x1, shaped as x1, for a cotangent (b1, k) in float64.

        Where ``residual`` is None, it is computed again.
        """
        ...


@runtime_checkable
class JacobianTiles(TileKernels, Protocol):
    """Tiles of a backend that differentiates the layers of a pair once for all outputs."""

    def combine_jacobian(
        self, x1: jax.Array, prepared: Prepared, coefficients: jax.Array, entries: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """NTK tile @ coefficients in float64, (b1, k), and its derivatives in the flat images x1, (b1, k, pixels).

        With ``entries`` (p,), indices of pixels of a flat image, the derivatives in these alone, (b1, k, p).
        """
        ...


@dataclass(frozen=True)
class NeuralTangentsBackend:
    """Analytic kernels of any network that neural-tangents can describe, differentiated by JAX.

    Its input gradient is NaN where the variance of an image vanishes (an all-zero image with b_std = 0).
    """

    kernel_fn: Any
    name: str = "neural-tangents"

    def prepare(self, x2: jax.Array) -> Prepared:
        """The images themselves: nothing is computed ahead."""
        return x2

    def tile(self, x1: jax.Array, prepared: Prepared, kind: KernelKind) -> jax.Array:
        """Kernel values (b1, b2)."""
        with _widest(x1):
            return self.kernel_fn(x1, prepared, kind)  # type: ignore[no-any-return]

    def tile_vjp(self, x1: jax.Array, prepared: Prepared, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """NTK tile (b1, b2), and d sum(weight * tile) / d x1."""
        with _widest(x1):
            tile, pull_back = jax.vjp(lambda x: self.kernel_fn(x, prepared, "ntk"), x1)
            return tile, pull_back(weight)[0]


def _widest(x: jax.Array) -> AbstractContextManager[Any]:
    """Where float64 is allowed neural-tangents promotes float32 images to it: allow only what the images are."""
    return jax.enable_x64(x.dtype == jnp.float64)
