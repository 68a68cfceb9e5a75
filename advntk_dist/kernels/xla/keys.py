"""A number for each image by which equal images are recognised, whatever a matrix product rounds to."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from advntk_dist.grid import spans
from advntk_dist.kernels.xla.box import stored

_SPREAD = np.uint32(0x7FEB352D)  # a multiplier of the integer hash "lowbias32" (C. Wellons, Hash Prospector, 2018)
_PARTS = 4


def keys(x: jax.Array) -> jax.Array:
    """A 32-bit hash of the numbers of each row of x (b, d), float32 or float64: (b,) uint32, exact on every device.

    Rows whose numbers are equal have equal keys; others do with a chance of about 2^-32. Numbers are mixed, multiplied
    with odd numbers of their own that were drawn at random, and added.
    """
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, jnp.zeros_like(x), x), jnp.uint32)  # -0 is equal to 0
    bits = bits.reshape(x.shape[0], -1)
    width = -(-bits.shape[1] // _PARTS)
    odd = np.random.default_rng(0).integers(0, 2**32, (_PARTS, width), dtype=np.uint32) | np.uint32(1)
    total = jnp.zeros((x.shape[0], width), jnp.uint32)
    # Added in parts first: XLA sums along rows number by number, and this loop in whole vectors.
    for place, part in enumerate(spans(bits.shape[1], width)):
        one = bits[:, part]
        mixed = (one ^ (one >> 16)) * _SPREAD
        mixed = (mixed ^ (mixed >> 15)) * odd[place, : one.shape[1]]
        total = total + jnp.pad(mixed, ((0, 0), (0, width - one.shape[1])))
    return stored(total).sum(axis=1, dtype=jnp.uint32)
