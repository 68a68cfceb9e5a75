"""All steps of projected gradient ascent in one device program.

For sums of kernels each step meets all training images, prepared block by prepared block; nothing leaves the device
between steps. What the value pass leaves for the gradient pass is kept if it fits the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from advntk_dist.attacks.geometry import ascent_direction, project
from advntk_dist.attacks.losses import loss_and_slope
from advntk_dist.kernels.backend import KernelBackend, Prepared
from advntk_dist.kernels.combine import gradient, values, values_and_jacobian
from advntk_dist.kernels.scope import compiler_options
from advntk_dist.spec import Loss, Norm


def projected_ascent(
    loss_gradient: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    clean: jax.Array,
    radius: float,
    steps: int,
    step_size: float,
    norm: Norm,
) -> tuple[jax.Array, jax.Array]:
    """Projected gradient ascent as a loop that JAX can compile (Madry et al. 2018).

    Parameters
    ----------
    loss_gradient
        Gives the gradients of the losses, shaped as the images, at images (b, H, W, C).
    start, clean
        First iterates and centres of the balls, (b, H, W, C).
    radius, steps, step_size
        As in :func:`advntk_dist.attacks.pgd.pgd`; none of them needs to be known when the loop is compiled.
    norm
        The norm of the balls and of the steps.

    Returns
    -------
    jax.Array
        The last iterates, shaped as ``start``.
    jax.Array
        Whether all gradients were finite; clipping may hide that they were not.
    """

    def step(_: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        current, finite = state
        slope = loss_gradient(current)
        moved = current + step_size * ascent_direction(slope, norm, current)
        return project(moved, clean, radius, norm), finite & jnp.isfinite(slope).all()

    return jax.lax.fori_loop(0, steps, step, (start, jnp.asarray(True)))


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
    """:func:`projected_ascent` of a loss of K(x, X) c; runs inside ``kernel_scope``.

    Parameters
    ----------
    prepared, coefficients
        Stacked blocks of training images and c, as :func:`advntk_dist.kernels.combine.values` takes them.
    start, clean, radius, steps, step_size, norm
        As for :func:`projected_ascent`.
    targets, towards
        (b, k) float64 and (b,) int64, as :func:`advntk_dist.attacks.losses.loss_and_slope` takes them.
    backend, loss
        The kernel, and the name of the loss.
    budget
        Bytes that one step may keep from its value pass for its gradient pass.
    """

    def loss_gradient(x: jax.Array) -> jax.Array:
        return value_and_gradient(
            prepared, coefficients, x, targets, towards, backend=backend, loss=loss, budget=budget
        )[2]  # fmt: skip

    return projected_ascent(loss_gradient, start, clean, radius, steps, step_size, norm)


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
def compiled_values_and_jacobian() -> Any:
    """:func:`advntk_dist.kernels.combine.values_and_jacobian`, compiled once for each backend and shape."""
    return jax.jit(values_and_jacobian, static_argnames="backend", compiler_options=compiler_options())


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
