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
            state = self._transformation.init(jnp.zeros(n, jnp.float64))
        self._leaves, self._structure = jax.tree.flatten(state)

    @property
    def state_size(self) -> int:
        """Numbers in the flat state."""
        return sum(int(np.size(leaf)) for leaf in self._leaves)

    def initial_state(self) -> Array:
        """The flat state before the first step."""
        return self._flatten(self._leaves)

    def step(self, a: Array, gradient: Array, state: Array) -> tuple[Array, Array]:
        """Parameters and flat state after one step."""
        with kernel_scope():
            updates, after = self._transformation.update(jnp.asarray(gradient), self._unflatten(state), jnp.asarray(a))
            moved = optax.apply_updates(jnp.asarray(a), updates)
            return np.array(moved, np.float64), self._flatten(jax.tree.leaves(after))

    def _flatten(self, leaves: list[Any]) -> Array:
        return np.concatenate([np.zeros(0), *[np.ravel(np.asarray(leaf, np.float64)) for leaf in leaves]])

    def _unflatten(self, state: Array) -> Any:
        leaves, at = [], 0
        for leaf in self._leaves:
            size = int(np.size(leaf))
            leaves.append(jnp.asarray(state[at : at + size].reshape(np.shape(leaf)), jnp.asarray(leaf).dtype))
            at += size
        return jax.tree.unflatten(self._structure, leaves)
