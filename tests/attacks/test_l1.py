"""The l1 ball cut to the pixel range: projection, sparse steps, random points."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.optimize import brentq

from advntk_dist.attacks.geometry import (
    ascent_direction,
    perturbation_size,
    project,
    project_l1,
    sparse_direction,
)
from advntk_dist.kernels.scope import kernel_scope

Array = NDArray[np.float64]
SHAPE = (3, 2, 3, 1)


def _exact(x: Array, centre: Array, radius: float) -> Array:
    """One image at a time, by root finding on the multiplier."""
    out = []
    for point, c in zip(x.reshape(len(x), -1), centre.reshape(len(x), -1), strict=True):

        def step(threshold: float, point: Array = point, c: Array = c) -> Array:
            u = point - c
            return np.clip(np.sign(u) * np.maximum(np.abs(u) - threshold, 0), -0.5 - c, 0.5 - c)

        best = 0.0
        if np.abs(step(0.0)).sum() > radius:
            top = float(np.abs(point - c).max())
            best = float(brentq(lambda t, s=step: np.abs(s(t)).sum() - radius, 0.0, top, xtol=1e-15))
        out.append(c + step(best))
    return np.array(out).reshape(x.shape)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.float64, SHAPE, elements=st.floats(-3, 3, allow_subnormal=False)),
    hnp.arrays(np.float64, SHAPE, elements=st.floats(-0.5, 0.5, allow_subnormal=False)),
    st.floats(0, 4),
    st.sampled_from([np.float32, np.float64]),
)
def test_projection_is_the_nearest_point_in_ball_and_range(x: Array, centre: Array, radius: float, dtype: Any) -> None:
    x, centre = x.astype(dtype), np.clip(centre.astype(dtype), -0.5, 0.5)
    found = project(x, centre, radius, "l1")
    assert found.dtype == dtype
    assert (perturbation_size(found, centre, "l1") <= radius * (1 + 1e-12) + 1e-14).all(), "float32, too"
    assert np.abs(found).max() <= 0.5
    nearest = _exact(x.astype(np.float64), centre.astype(np.float64), radius)
    np.testing.assert_allclose(found, nearest, atol=1e-6 if dtype == np.float32 else 1e-12)
    np.testing.assert_allclose(project(found, centre, radius, "l1"), found, atol=1e-6)
    with kernel_scope():
        traced = jax.jit(project_l1)(jnp.asarray(x), jnp.asarray(centre), radius)
    assert traced.dtype == dtype
    np.testing.assert_allclose(traced, found, atol=1e-6 if dtype == np.float32 else 1e-12)


def test_a_point_inside_stays_where_it_is() -> None:
    rng = np.random.default_rng(0)
    centre = rng.uniform(-0.4, 0.4, SHAPE)
    x = centre + rng.uniform(-0.01, 0.01, SHAPE)
    np.testing.assert_allclose(project(x, centre, 1.0, "l1"), x, atol=1e-15)


def test_steps_go_along_the_largest_entries_that_can_move() -> None:
    gradient = np.array([4.0, -3.0, 2.0, -1.0, 0.0, 0.5]).reshape(1, 2, 3, 1)
    at = np.array([0.5, -0.5, 0.0, 0.5, 0.0, -0.5]).reshape(1, 2, 3, 1)
    free = sparse_direction(gradient, 2, None)
    np.testing.assert_allclose(free.ravel(), [0.5, -0.5, 0, 0, 0, 0])
    held = sparse_direction(gradient, np.array([2]), at)
    np.testing.assert_allclose(held.ravel(), [0, 0, 0.5, -0.5, 0, 0])
    few = sparse_direction(gradient, 6, at)
    np.testing.assert_allclose(few.ravel(), [0, 0, 1 / 3, -1 / 3, 0, 1 / 3])


def test_direction_of_unit_size_and_of_nothing() -> None:
    gradient = np.random.default_rng(1).standard_normal((2, 16, 16, 1)).astype(np.float32)
    gradient[1] = 0
    direction = ascent_direction(gradient, "l1")
    assert direction.dtype == np.float32
    np.testing.assert_allclose(np.abs(direction[0]).sum(), 1.0, rtol=1e-6)
    assert (direction[0] != 0).sum() == 3, "a hundredth of 256 pixels, rounded up"
    np.testing.assert_array_equal(direction[1], 0.0)
