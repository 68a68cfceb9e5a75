"""The theorem's setting on one finite network: gradient flow outside, gradient flow of the images inside.

    d theta / dt = -grad_theta 1/2 || f_t(X_{t,S}) - Y ||^2
    d x_{t,s} / ds = eta grad_x 1/2 || f_t(x_{t,s}) - y ||^2,  x_{t,0} = x          (Fu & Wang 2024, section 4)

Both flows by the classical Runge-Kutta method. The outer step comes from the largest eigenvalue that drives the
linearised flow, and is halved until that changes little in comparison with what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from advntk_dist.config.finite_width import FlowConfig
from advntk_dist.errors import SolverError
from advntk_dist.finite.networks import FiniteNetwork, Params, empirical_ark, empirical_ntk
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.solve.phi import phi_1

Array = NDArray[np.float64]

_HALVINGS = 6
"""Times that the outer step is halved before it is given up."""

_ROUNDINGS = 1e3
"""Change under halved steps, in roundings of 1, that passes where there is no gap to measure."""

_MOST_STEPS = 1_000_000
"""Outer steps of one attempt; a rate that asks for more is a mistake in the settings."""


@dataclass(frozen=True, eq=False)
class FlowTrial:
    """What one network has shown.

    Attributes
    ----------
    outputs, linear
        f_t and f_t^lin at the training images and then the test images, (times, n + m, k).
    ntk_change, ark_change
        Frobenius norm of the change from t = 0 to the last time, relative to the norm at t = 0.
    step_error
        Largest difference (root mean square over images, as the gaps) that the last halving of the step has made.
    steps
        Outer steps in all.
    """

    outputs: Array
    linear: Array
    n_train: int
    ntk_change: float
    ark_change: float
    step_error: float
    steps: int

    @property
    def gap_train(self) -> float:
        """sup_t of the root mean square over training images of | f_t(x) - f_t^lin(x) |."""
        return _sup_rms(self.outputs - self.linear, slice(0, self.n_train))

    @property
    def gap_test(self) -> float:
        """The same over test images."""
        return _sup_rms(self.outputs - self.linear, slice(self.n_train, None))


def flow_times(config: FlowConfig) -> Array:
    """Times of comparison: 0, and geometric steps over the three decades before the end."""
    return np.concatenate([[0.0], np.geomspace(config.end / 1000, config.end, config.points - 1)])


def run_flow(network: FiniteNetwork, seed: int, x: Any, y: Array, x_test: Any, config: FlowConfig) -> FlowTrial:
    """Draw a network, train it and its linearisation, and compare.

    Parameters
    ----------
    network, seed
        What is drawn.
    x, y, x_test
        Training images (n, H, W, C) and targets (n, k), test images (m, H, W, C); computed in ``config.dtype``.
    config
        Times, inner flow, steps.

    Raises
    ------
    SolverError
        If halved steps go on changing the outcome, or numbers overflow.
    """
    with kernel_scope():
        images, rest = (jnp.asarray(part, config.dtype) for part in (x, x_test))
        targets = jnp.asarray(y, config.dtype)
        params = network.init(seed, images.shape[1:], config.dtype)
        everything = jnp.concatenate([images, rest])
        n, k = targets.shape
        kernel = np.asarray(empirical_ntk(network, params, everything, images), np.float64)
        ark = np.asarray(empirical_ark(network, params, images), np.float64)
        start = np.asarray(network.apply(params, everything), np.float64)
        linearised = LinearisedFlow(kernel[: n * k], ark, config.eta * config.inner_time, start[:n] - np.asarray(y))
        times = flow_times(config)
        linear = start + linearised.change(kernel, times).reshape(len(times), *start.shape)
        outputs, last, error, steps = _converged(
            network, params, images, targets, everything, linear, linearised, config
        )
        after_ntk = np.asarray(empirical_ntk(network, last, images, images), np.float64)
        after_ark = np.asarray(empirical_ark(network, last, images), np.float64)
    return FlowTrial(outputs, linear, n, _relative(after_ntk, kernel[: n * k]), _relative(after_ark, ark), error, steps)


def _converged(
    network: FiniteNetwork,
    params: Params,
    images: jax.Array,
    targets: jax.Array,
    everything: jax.Array,
    linear: Array,
    linearised: LinearisedFlow,
    config: FlowConfig,
) -> tuple[Array, Params, float, int]:
    """Halve the outer step until that changes less than the tolerance times the smaller of the two gaps."""
    rate, times, n = linearised.rate / config.step, flow_times(config), len(images)
    before: Array | None = None
    error = np.inf
    if not times[-1] * rate <= _MOST_STEPS:
        raise SolverError(
            f"flow: {network.name} of width {network.width}: residuals decay at a rate of {linearised.rate:.3g}, "
            f"which asks for more than {_MOST_STEPS:,} steps; take a smaller flow.inner_time, flow.eta or flow.end"
        )
    for halving in range(_HALVINGS + 1):
        outputs, last, steps = [np.asarray(network.apply(params, everything), np.float64)], params, 0
        for span in np.diff(times):
            count = int(np.ceil(span * rate * 2**halving))
            last = outer_flow(network, last, images, targets, span / count, count, config)
            outputs.append(np.asarray(network.apply(last, everything), np.float64))
            steps += count
        found = np.stack(outputs)
        if before is not None and np.isfinite(found).all():
            error = _sup_rms(found - before, slice(None))
            # With nothing to measure (a network linear in both) rounding is all there is.
            gap = min(_sup_rms(found - linear, part) for part in (slice(0, n), slice(n, None)))
            if error <= config.tolerance * gap + _ROUNDINGS * np.finfo(config.dtype).eps:
                return found, last, error, steps
        before = found
    raise SolverError(
        f"flow: {network.name} of width {network.width}: {2**_HALVINGS} times smaller steps still change the outcome "
        f"by {error:.3g}; take a smaller flow.step, flow.end or flow.inner_time, or more flow.inner_steps"
    )


def outer_flow(
    network: FiniteNetwork, params: Params, x: jax.Array, y: jax.Array, step: float, steps: int, config: FlowConfig
) -> Params:
    """The weights after ``steps`` Runge-Kutta steps of length ``step``; inside ``kernel_scope``."""
    return _outer(network, config.inner_steps, params, x, y, step, steps, config.eta, config.inner_time)


@partial(jax.jit, static_argnums=(0, 1))
def _outer(
    network: FiniteNetwork,
    inner_steps: int,
    params: Params,
    x: jax.Array,
    y: jax.Array,
    step: float,
    steps: int,
    eta: float,
    inner_time: float,
) -> Params:
    def velocity(p: Params) -> Params:
        moved = inner_flow(network, p, x, y, eta, inner_time, inner_steps)
        gradient = jax.grad(lambda q: _loss(network, q, moved, y))(p)
        return jax.tree.map(jnp.negative, gradient)

    return jax.lax.fori_loop(0, steps, lambda _, p: _runge_kutta(velocity, p, step), params)


def inner_flow(
    network: FiniteNetwork, params: Params, x: jax.Array, y: jax.Array, eta: float, inner_time: float, steps: int
) -> jax.Array:
    """Images (n, H, W, C) after gradient ascent flow of length ``inner_time`` at rate ``eta``; no projection."""

    def velocity(z: jax.Array) -> jax.Array:
        return eta * jax.grad(lambda v: _loss(network, params, v, y))(z)

    return jax.lax.fori_loop(0, steps, lambda _, z: _runge_kutta(velocity, z, inner_time / steps), x)


def _loss(network: FiniteNetwork, params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    return 0.5 * jnp.sum((network.apply(params, x) - y) ** 2)


def _runge_kutta(velocity: Any, state: Any, step: Any) -> Any:
    """One classical Runge-Kutta step of a tree of arrays, in their dtypes; ``velocity`` is compiled only once."""

    def along(start: Any, slope: Any, length: Any) -> Any:
        return jax.tree.map(lambda a, b: a + jnp.asarray(length, a.dtype) * b, start, slope)

    def stage(carry: tuple[Any, Any], place: Any) -> tuple[tuple[Any, Any], None]:
        slope, total = carry
        offset, weight = place
        slope = velocity(along(state, slope, offset * step))
        return (slope, along(total, slope, weight * step)), None

    stages = jnp.array([[0, 1 / 6], [1 / 2, 1 / 3], [1 / 2, 1 / 3], [1, 1 / 6]])
    (_, after), _ = jax.lax.scan(stage, (jax.tree.map(jnp.zeros_like, state), state), stages)
    return after


def _sup_rms(difference: Array, part: slice) -> float:
    """Largest over times of the root mean square over images of the Euclidean norm over outputs."""
    return float(np.sqrt((difference[:, part] ** 2).sum(axis=2).mean(axis=1)).max())


def _relative(after: Array, before: Array) -> float:
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


class LinearisedFlow:
    """The solution for all times.

    Parameters
    ----------
    theta
        NTK at the start between training images, (n k, n k).
    ark
        Gram matrices of input gradients at the start, (n, k, k).
    strength
        eta S, the rate of the inner flow times its length.
    residual
        f_0(X) - Y, (n, k).

    Raises
    ------
    SolverError
        If the inner flow is so strong that its exponential exceeds float64.
    """

    def __init__(self, theta: Array, ark: Array, strength: float, residual: Array) -> None:
        n, k = residual.shape
        root = np.zeros((n, k, n, k))
        for i, block in enumerate(ark):
            values, vectors = np.linalg.eigh(block)
            with np.errstate(over="ignore"):  # what is not finite is refused below
                root[i, :, i, :] = (vectors * np.exp(0.5 * strength * values)) @ vectors.T
        self._root = root.reshape(n * k, n * k)
        with np.errstate(over="ignore", invalid="ignore"):
            whole = self._root @ theta @ self._root
        if not np.isfinite(whole).all():
            raise SolverError(
                f"finite: the inner flow multiplies residuals by more than float64 holds (strength {strength:g}, "
                f"ARK up to {np.abs(ark).max():.3g}); take a smaller flow.inner_time or flow.eta"
            )
        self._values, self._vectors = np.linalg.eigh(whole)
        self._start = self._vectors.T @ (self._root @ residual.ravel())

    @property
    def rate(self) -> float:
        """Largest rate at which a residual decays, the largest eigenvalue of Theta_0 E."""
        return float(self._values[-1])

    def change(self, kernel: Array, times: Array) -> Array:
        """f_t^lin - f_0 at points whose NTK with the training images is ``kernel`` (m k, n k); (times, m k)."""
        t = np.asarray(times, dtype=np.float64)[:, None]
        integrated = t * phi_1(-t * np.maximum(self._values, 0.0)) * self._start
        return np.asarray(-(integrated @ self._vectors.T) @ self._root @ kernel.T)
