"""Blocks of left images whose arrays over the pairs stay in cache."""

from __future__ import annotations

import jax
import jax.numpy as jnp

BLOCK_BYTES = {"cpu": 2**18}
"""Size of one array of a block of pairs: several of them fit the level-2 cache of a CPU core."""
BLOCK_BYTES_ELSEWHERE = 2**23
_FEWEST_ROWS = 16


def block_rows(rows: int, row_bytes: int) -> int:
    """Rows of a block, in equal blocks that cover ``rows`` rows of ``row_bytes`` bytes each."""
    most = max(_FEWEST_ROWS, BLOCK_BYTES.get(jax.default_backend(), BLOCK_BYTES_ELSEWHERE) // row_bytes)
    blocks = -(-rows // most)
    return -(-rows // blocks)


def in_blocks(x: jax.Array, height: int) -> jax.Array:
    """Rows in blocks (blocks, height, ...), filled up with zeros."""
    blocks = -(-x.shape[0] // height)
    padded = jnp.pad(x, ((0, blocks * height - x.shape[0]),) + ((0, 0),) * (x.ndim - 1))
    return padded.reshape(blocks, height, *x.shape[1:])
