"""Sums over 3x3 neighbourhoods with zeros around the image (SAME convolutions), pixels first."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def border(a: jax.Array) -> jax.Array:
    """Zeros around the two leading axes: (H, W, ...) to (H + 2, W + 2, ...)."""
    return jnp.pad(a, ((1, 1), (1, 1)) + ((0, 0),) * (a.ndim - 2))


def inner_sum(a: jax.Array) -> jax.Array:
    """3x3 sums of a bordered array: (H + 2, W + 2, ...) to (H, W, ...)."""
    height, width = a.shape[0] - 2, a.shape[1] - 2
    columns = [a[i : i + height, j : j + width] for j in range(3) for i in range(3)]
    total = columns[0]
    for shifted in columns[1:]:
        total = total + shifted
    return total


def box_sum(a: jax.Array) -> jax.Array:
    """3x3 sums, (H, W, ...) to (H, W, ...)."""
    return inner_sum(stored(border(a)))


def stored(a: jax.Array) -> jax.Array:
    """``a`` itself, computed once before it is bordered and summed.

    XLA would otherwise compute the summands of a 3x3 sum again for each of the places they are read from.
    """
    return jax.lax.optimization_barrier(a)


def copies(a: jax.Array, number: int) -> tuple[jax.Array, ...]:
    """``a`` under several names that XLA cannot merge.

    Loops over the pairs are bound by the cache: two results that share a square root are faster computed in two
    loops from the same input than in three, the first of which stores the root.
    """
    return tuple(jax.lax.optimization_barrier((a,) * number))
