"""Arrays over the pairs of a block that are computed once: XLA would compute them again in each loop that reads them.

Two devices hold it back. An optimisation barrier does within one loop: a 3x3 sum (a SAME convolution with equal
weights, zeros around the image, pixels first) reads each summand nine times, so its summands are stored first. Across
loops a barrier does not hold: there the arrays of a layer are written to a buffer at a loop counter, which XLA cannot
see through, and read back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

_Arrays = TypeVar("_Arrays")
"""A pytree of arrays."""

_State = TypeVar("_State")


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


def loop(lower: int, upper: int, body: Callable[[jax.Array, _State], _State], state: _State) -> _State:
    """``fori_loop`` whose length XLA cannot see on a CPU: it would write out short loops and merge their steps.

    For a GPU it does not, and there a length that it cannot see costs each step a wait for the condition to come back.
    """
    if jax.default_backend() != "cpu":
        return jax.lax.fori_loop(np.int32(lower), np.int32(upper), body, state)
    opaque = jax.lax.optimization_barrier(jnp.asarray(upper, jnp.int32))
    return jax.lax.fori_loop(jnp.asarray(lower, jnp.int32), opaque, body, state)


def at(stacked: _Arrays, depth: int | jax.Array) -> _Arrays:
    """The arrays of one layer; ``depth`` must not be negative."""
    return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, depth, keepdims=False), stacked)


def empty_buffer(arrays: _Arrays, places: int) -> _Arrays:
    """Room for ``places`` times some arrays: zeros (places, ...) for each of them."""
    return jax.tree.map(lambda a: jnp.zeros((places, *a.shape), a.dtype), arrays)


def put(buffer: _Arrays, depth: int | jax.Array, arrays: _Arrays) -> _Arrays:
    """The buffer with ``arrays`` at ``depth``."""
    return jax.tree.map(lambda b, a: jax.lax.dynamic_update_index_in_dim(b, a, depth, 0), buffer, arrays)


def through(buffer: _Arrays, depth: int | jax.Array, arrays: _Arrays) -> tuple[_Arrays, _Arrays]:
    """``arrays`` as read back from the buffer, and the buffer."""
    buffer = put(buffer, depth, arrays)
    return at(buffer, depth), buffer


def add_at(q: jax.Array, depth: int | jax.Array, share: jax.Array) -> jax.Array:
    """``q`` with ``share`` added at ``depth``."""
    total = jax.lax.dynamic_index_in_dim(q, depth, keepdims=False) + share
    return jax.lax.dynamic_update_index_in_dim(q, total, depth, 0)
