"""The general backend: neural-tangents' analytic kernels, differentiated by JAX."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from advntk_dist.kernels.backend import KernelKind, Prepared


@dataclass(frozen=True)
class NeuralTangentsBackend:
    """Any network that neural-tangents can describe.

    Its input gradient is NaN where the variance of an image vanishes (an all-zero image with b_std = 0).
    """

    kernel_fn: Any
    name: str = "neural-tangents"

    def prepare(self, x2: jax.Array) -> Prepared:
        """Nothing is precomputed: the images themselves."""
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
