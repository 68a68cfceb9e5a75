"""Arrays over the pairs of a block that are written to memory layer by layer.

What is put on a tape and read back is computed once; XLA would repeat a 3x3 sum in every loop that reads it, and
its optimisation barriers do not hold that long. With a loop counter as the place, it cannot see through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from advntk_dist.kernels.xla.relu import Norms, PairState

_T = TypeVar("_T", Norms, PairState)
_State = TypeVar("_State")


def loop(lower: int, upper: int, body: Callable[[jax.Array, _State], _State], state: _State) -> _State:
    """``fori_loop`` whose length XLA does not know: it would write out short loops and merge their steps."""
    opaque = jax.lax.optimization_barrier(jnp.asarray(upper, jnp.int32))
    return jax.lax.fori_loop(jnp.asarray(lower, jnp.int32), opaque, body, state)


def at(stacked: _T, depth: int | jax.Array) -> _T:
    """The arrays of one layer; ``depth`` must not be negative."""
    return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, depth, keepdims=False), stacked)


def room(e: jax.Array, places: int) -> PairState:
    """A tape for ``places`` pairs of arrays shaped as ``e``."""
    empty = jnp.zeros((places, *e.shape), e.dtype)
    return PairState(empty, empty)


def put(tape: PairState, depth: int | jax.Array, pairs: PairState) -> PairState:
    """The tape with ``pairs`` at ``depth``."""
    return jax.tree.map(lambda t, a: jax.lax.dynamic_update_index_in_dim(t, a, depth, 0), tape, pairs)


def through(tape: PairState, depth: int | jax.Array, pairs: PairState) -> tuple[PairState, PairState]:
    """``pairs`` as read back from the tape, and the tape."""
    tape = put(tape, depth, pairs)
    return at(tape, depth), tape


def add_at(q: jax.Array, depth: int | jax.Array, share: jax.Array) -> jax.Array:
    """``q`` with ``share`` added at ``depth``."""
    total = jax.lax.dynamic_index_in_dim(q, depth, keepdims=False) + share
    return jax.lax.dynamic_update_index_in_dim(q, total, depth, 0)
