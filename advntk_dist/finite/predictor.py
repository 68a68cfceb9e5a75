"""A trained finite network as the attacks and the evaluation see it."""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import Ascent, DifferentiablePredictor
from advntk_dist.attacks.geometry import Images
from advntk_dist.attacks.losses import loss_and_slope
from advntk_dist.attacks.on_device import projected_ascent
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.finite.networks import FiniteNetwork, Params
from advntk_dist.grid import spans
from advntk_dist.kernels.compiled import pad_rows
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.spec import Loss, Norm


def ascend(
    network: FiniteNetwork,
    norm: Norm,
    loss: Loss,
    params: Params,
    start: jax.Array,
    clean: jax.Array,
    targets: jax.Array,
    towards: jax.Array,
    radius: float,
    steps: int,
    step_size: float,
) -> jax.Array:
    """The last iterates of projected gradient ascent of a loss of one network; runs inside ``kernel_scope``.

    Arguments are as for :func:`advntk_dist.attacks.on_device.projected_ascent`, with ``targets`` (b, k) and
    ``towards`` (b,) as :func:`advntk_dist.attacks.losses.loss_and_slope` takes them.
    """

    def loss_gradient(x: jax.Array) -> jax.Array:
        f, pull_back = jax.vjp(lambda z: network.apply(params, z), x)
        found: jax.Array = pull_back(loss_and_slope(loss, f, targets, towards)[1])[0]
        return found

    return projected_ascent(loss_gradient, start, clean, radius, steps, step_size, norm)[0]


_ascend = jax.jit(ascend, static_argnums=(0, 1, 2))


@partial(jax.jit, static_argnums=0)
def _predict(network: FiniteNetwork, params: Params, x: jax.Array) -> jax.Array:
    return network.apply(params, x)


@partial(jax.jit, static_argnums=0)
def _vjp(network: FiniteNetwork, params: Params, x: jax.Array, cotangent: jax.Array) -> jax.Array:
    return jax.grad(lambda z: jnp.sum(network.apply(params, z) * cotangent))(x)


class FinitePredictor(DifferentiablePredictor):
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
        """The number of outputs k."""
        return self.network.classes

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        """Outputs (m, k) of images (m, H, W, C)."""
        return np.asarray(self._batched(partial(_predict, self.network, self.params), self._images(x)), np.float64)

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> Images:
        """d sum(cotangent * predict(x)) / d x, shaped as x."""
        weights = np.asarray(cotangent, self.dtype)
        return self._batched(partial(_vjp, self.network, self.params), self._images(x), weights)

    def ascend(self, start: Images, clean: Images, wanted: NDArray[np.float64], **how: Unpack[Ascent]) -> Images:
        """The last iterates of projected gradient ascent, as the protocol says, with all steps on the device."""
        if start.dtype != self.dtype:
            return super().ascend(start, clean, wanted, **how)

        def run(*rows: Any) -> jax.Array:
            numbers = how["radius"], how["steps"], how["step_size"]
            return _ascend(self.network, how["norm"], how["loss"], self.params, *rows, *numbers)

        return self._batched(run, start, clean, wanted.astype(self.dtype), how["towards"])

    def _images(self, x: ArrayLike) -> Images:
        return to_unit_range(np.asarray(x)).astype(self.dtype, copy=False)

    def _batched(self, program: Any, *parts: NDArray[Any]) -> NDArray[Any]:
        """Run a program on full batches of rows, the last one filled up with its first row."""
        out = []
        with kernel_scope():
            for span in spans(len(parts[0]), self.batch):
                full = program(*(pad_rows(part[span], self.batch) for part in parts))
                out.append(np.asarray(full)[: span.stop - span.start])
        return np.concatenate(out)
