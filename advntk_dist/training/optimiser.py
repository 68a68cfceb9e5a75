"""Optimisers of the parameters of varpi, as optax transformations with a flat state to checkpoint."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from advntk_dist.kernels.scope import kernel_scope

Array = NDArray[np.float64]


def normalised(lr: float) -> optax.GradientTransformation:
    """The step of Fu & Wang (2024), section 5: a -= lr g / (||g|| + 1e-8)."""
    return optax.chain(optax.normalize_by_update_norm(scale_factor=1.0, eps=1e-8), optax.scale(-lr))


def momentum(length: float, steps: int, memory: float) -> optax.GradientTransformation:
    """Steps along a running mean of gradients, of a length that falls from ``length`` to 0 as a cosine."""
    return optax.chain(
        optax.ema(memory, debias=False),
        optax.normalize_by_update_norm(scale_factor=1.0, eps=1e-30),
        optax.scale_by_learning_rate(optax.cosine_decay_schedule(length, steps)),
    )


class Optimiser:
    """An optax transformation with a flat state to checkpoint.

    Parameters
    ----------
    transformation
        Such as :func:`normalised` makes.
    n
        Number of parameters.
    """

    def __init__(self, transformation: optax.GradientTransformation, n: int) -> None:
        self._transformation = transformation
        with kernel_scope():
            self._initial = self._transformation.init(jnp.zeros(n, jnp.float64))

    @property
    def state_size(self) -> int:
        """Numbers in the flat state."""
        return len(self.initial_state())

    def initial_state(self) -> Array:
        """The flat state before the first step."""
        return flatten(self._initial)

    def step(self, a: Array, gradient: Array, state: Array) -> tuple[Array, Array]:
        """Parameters and flat state after one step."""
        with kernel_scope():
            before = unflatten(state, self._initial)
            updates, after = self._transformation.update(jnp.asarray(gradient), before, jnp.asarray(a))
            moved = optax.apply_updates(jnp.asarray(a), updates)
            return np.array(moved, np.float64), flatten(after)


def flatten(tree: Any) -> Array:
    """Every number of a tree of arrays as one float64 vector; exact for float32 and small integers."""
    leaves = [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([np.zeros(0), *leaves])


def unflatten(vector: Array, like: Any) -> Any:
    """The tree that :func:`flatten` made a vector of; shapes and dtypes from ``like``."""
    leaves, structure = jax.tree.flatten(like)
    made, at = [], 0
    for leaf in leaves:
        size = int(np.size(leaf))
        made.append(jnp.asarray(vector[at : at + size].reshape(np.shape(leaf)), jnp.asarray(leaf).dtype))
        at += size
    return jax.tree.unflatten(structure, made)
