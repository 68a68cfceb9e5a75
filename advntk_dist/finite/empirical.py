"""Kernels of one finite network: its NTK, and the Gram matrix of its input gradients (empirical ARK)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from advntk_dist.finite.networks import FiniteNetwork, Params

_COLUMNS = 16
"""Columns of the NTK computed at once: each carries a copy of the weights."""


@partial(jax.jit, static_argnums=0)
def empirical_ntk(network: FiniteNetwork, params: Params, x1: jax.Array, x2: jax.Array) -> jax.Array:
    """d f(x1) / d theta . d f(x2) / d theta, (m k, n k), image by image and output by output.

    Column by column through one reverse and one forward pass: the Jacobians, (n k, parameters), are never held.
    """
    outputs = network.classes

    def column(place: jax.Array) -> jax.Array:
        image, output = jnp.divmod(place, outputs)
        one = jax.lax.dynamic_slice_in_dim(x2, image, 1)
        gradient = jax.grad(lambda p: network.apply(p, one)[0, output])(params)
        return jax.jvp(lambda p: network.apply(p, x1), (params,), (gradient,))[1].ravel()

    return jax.lax.map(column, jnp.arange(len(x2) * outputs), batch_size=_COLUMNS).T


@partial(jax.jit, static_argnums=0)
def empirical_ark(network: FiniteNetwork, params: Params, x: jax.Array) -> jax.Array:
    """d f(x) / d x . d f(x) / d x of each image with itself, (n, k, k); its expectation is ARK times the identity."""

    def one(image: jax.Array) -> jax.Array:
        slope: Any = jax.jacrev(lambda z: network.apply(params, z[None])[0])(image)
        flat = slope.reshape(network.classes, -1)
        return flat @ flat.T

    return jax.lax.map(one, x, batch_size=_COLUMNS)
