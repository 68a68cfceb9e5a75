"""All steps of projected gradient ascent in one device program, for predictors that are sums of kernels.

Each step meets all training images, prepared block by prepared block; nothing leaves the device between steps. What
the value pass leaves for the gradient pass is kept if it fits the budget.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.base import Images, Norm
from advntk_dist.attacks.geometry import ascent_direction, project
from advntk_dist.attacks.losses import Loss, loss_and_slope
from advntk_dist.kernels.backend import KernelBackend, Prepared
from advntk_dist.kernels.combine import gradient, values
from advntk_dist.kernels.scope import compiler_options


@runtime_checkable
class AscendingPredictor(Protocol):
    """A predictor that takes all steps of an attack by itself."""

    @property
    def outputs(self) -> int:
        """Numbers that it predicts for an image."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """The dtype of images that it computes in."""
        ...

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
        """Where ascent of the squared error to ``targets`` (m, k) leads from ``start`` (m, H, W, C)."""
        ...


@runtime_checkable
class LossAscendingPredictor(Protocol):
    """An :class:`AscendingPredictor` that ascends any loss, in any norm."""

    @property
    def outputs(self) -> int:
        """Numbers that it predicts for an image."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """The dtype of images that it computes in."""
        ...

    @property
    def value_and_slope(self) -> Any:
        """As :class:`advntk_dist.attacks.base.FusedPredictor` has it; it tells this predictor from the other."""
        ...

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
        loss: Loss,
        towards: NDArray[np.int64],
    ) -> Images:
        """Where ascent of the loss leads from ``start``; arguments as for :func:`ascend`."""
        ...


def ascend(
    prepared: Prepared,
    coefficients: jax.Array,
    start: jax.Array,
    clean: jax.Array,
    targets: jax.Array,
    towards: jax.Array,
    radius: float,
    steps: int,
    step_size: float,
    *,
    backend: KernelBackend,
    norm: Norm,
    loss: Loss,
    budget: int,
) -> tuple[jax.Array, jax.Array]:
    """Projected gradient ascent of a loss of K(x, X) c; runs inside ``kernel_scope``.

    Parameters
    ----------
    prepared, coefficients
        Stacked blocks of training images and c, as :func:`advntk_dist.kernels.combine.values` takes them.
    start, clean
        First iterates and centres of the balls, (b, H, W, C).
    targets, towards
        (b, k) float64 and (b,) int64, as :func:`advntk_dist.attacks.losses.loss_and_slope` takes them.
    radius, steps, step_size
        As in :func:`advntk_dist.attacks.pgd`; none of them is compiled in.
    backend
        The kernel.
    norm, loss
        Their names.
    budget
        Bytes that one step may keep from its value pass for its gradient pass.

    Returns
    -------
    jax.Array
        The last iterates, shaped as ``start``.
    jax.Array
        Whether all gradients were finite; clipping may hide that they were not.
    """

    def step(_: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        current, finite = state
        f, residuals = values(backend, current, prepared, coefficients, budget=budget)
        rise = loss_and_slope(loss, f, targets, towards)[1]
        slope = gradient(backend, current, prepared, coefficients, rise, residuals)
        moved = current + step_size * ascent_direction(slope, norm, current)
        return project(moved, clean, radius, norm), finite & jnp.isfinite(slope).all()

    return jax.lax.fori_loop(0, steps, step, (start, jnp.asarray(True)))


def value_and_gradient(
    prepared: Prepared,
    coefficients: jax.Array,
    x: jax.Array,
    targets: jax.Array,
    towards: jax.Array,
    *,
    backend: KernelBackend,
    loss: Loss,
    budget: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """f (b, k), losses (b,) and their gradients, shaped as x, from one value pass; arguments as for :func:`ascend`."""
    f, residuals = values(backend, x, prepared, coefficients, budget=budget)
    value, slope = loss_and_slope(loss, f, targets, towards)
    return f, value, gradient(backend, x, prepared, coefficients, slope, residuals)


@cache
def compiled_ascent() -> Any:
    """:func:`ascend`, compiled once for each backend, norm, loss, budget and shape."""
    return jax.jit(ascend, static_argnames=("backend", "norm", "loss", "budget"), compiler_options=compiler_options())


@cache
def compiled_value_and_gradient() -> Any:
    """:func:`value_and_gradient`, compiled once for each backend, loss, budget and shape."""
    return jax.jit(
        value_and_gradient, static_argnames=("backend", "loss", "budget"), compiler_options=compiler_options()
    )
