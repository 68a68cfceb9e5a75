"""A trained finite network as the attacks and the evaluation see it."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import Images, Norm
from advntk_dist.attacks.geometry import ascent_direction, project
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.finite.networks import FiniteNetwork, Params
from advntk_dist.grid import spans
from advntk_dist.kernels.scope import kernel_scope


def ascend(
    network: FiniteNetwork,
    norm: Norm,
    params: Params,
    start: jax.Array,
    clean: jax.Array,
    targets: jax.Array,
    radius: float,
    steps: int,
    step_size: float,
) -> jax.Array:
    """Projected gradient ascent of 1/2 || f(x) - targets ||^2 from ``start``; inside ``kernel_scope``.

    The gradient is taken at the current iterate, and the projection goes onto the ball around the clean image, then
    onto the pixel range (Madry et al. 2018).
    """

    def step(_: jax.Array, x: jax.Array) -> jax.Array:
        slope = jax.grad(lambda z: 0.5 * jnp.sum((network.apply(params, z) - targets) ** 2))(x)
        moved = x + jnp.asarray(step_size, x.dtype) * ascent_direction(slope, norm)
        return project(moved, clean, jnp.asarray(radius, x.dtype), norm)  # type: ignore[arg-type]

    return jax.lax.fori_loop(0, steps, step, start)


_ascend = jax.jit(ascend, static_argnums=(0, 1))


@partial(jax.jit, static_argnums=0)
def _predict(network: FiniteNetwork, params: Params, x: jax.Array) -> jax.Array:
    return network.apply(params, x)


@partial(jax.jit, static_argnums=0)
def _vjp(network: FiniteNetwork, params: Params, x: jax.Array, cotangent: jax.Array) -> jax.Array:
    return jax.grad(lambda z: jnp.sum(network.apply(params, z) * cotangent))(x)


class FinitePredictor:
    """Values, input gradients and projected ascent of one network.

    Parameters
    ----------
    network, params
        The network and its weights.
    batch
        Images to a program: fewer are filled up to it, so that programs are compiled once.
    """

    def __init__(self, network: FiniteNetwork, params: Params, batch: int) -> None:
        self.network, self.params, self.batch = network, params, batch
        self.dtype = np.dtype(jax.tree.leaves(params)[0].dtype)

    @property
    def outputs(self) -> int:
        """Numbers that it predicts for an image."""
        return self.network.classes

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        """Outputs (m, k) of images (m, H, W, C)."""
        return np.asarray(self._batched(partial(_predict, self.network, self.params), self._images(x)), np.float64)

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> Images:
        """d sum(cotangent * predict(x)) / d x, shaped as x."""
        weights = np.asarray(cotangent, self.dtype)
        return self._batched(partial(_vjp, self.network, self.params), self._images(x), weights)

    def ascend(
        self,
        start: Images,
        clean: Images,
        targets: NDArray[np.float64],
        *,
        radius: float,
        steps: int,
        step_size: float,
        norm: Norm,
    ) -> Images:
        """All steps of :func:`advntk_dist.attacks.pgd` on the device; arguments as there."""

        def run(x: Any, centre: Any, wanted: Any) -> jax.Array:
            return _ascend(self.network, norm, self.params, x, centre, wanted, radius, steps, step_size)

        return self._batched(run, start, clean, targets.astype(self.dtype))

    def _images(self, x: ArrayLike) -> Images:
        return to_unit_range(np.asarray(x)).astype(self.dtype, copy=False)

    def _batched(self, program: Any, *parts: NDArray[Any]) -> NDArray[Any]:
        """Run a program on full batches of rows, the last one filled up with its first row."""
        out = []
        with kernel_scope():
            for span in spans(len(parts[0]), self.batch):
                rows = [part[span] for part in parts]
                missing = self.batch - len(rows[0])
                full = [np.concatenate([r, np.repeat(r[:1], missing, axis=0)]) if missing else r for r in rows]
                out.append(np.asarray(program(*full))[: len(rows[0])])
        return np.concatenate(out)
