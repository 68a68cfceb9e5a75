"""The soft error: its gradient, what leaves it unchanged, and its limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from advntk_dist.training.cross_fit import soft_error

Array = NDArray[np.float64]


def _margins(f: Array, y: NDArray[np.int64]) -> Array:
    return np.array([max(np.delete(row, label)) - row[label] for row, label in zip(f, y, strict=True)])


def _plain(f: Array, y: NDArray[np.int64], constant: float, sharpness: float) -> float:
    """The definition, with the constant that makes the size a median given."""
    centred = f - f.mean(axis=1, keepdims=True)
    size = constant * np.linalg.norm(centred)
    return float(np.mean(1 / (1 + np.exp(-sharpness * _margins(centred, y) / size))))


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 12))
def test_gradient_is_that_of_the_definition(seed: int, k: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    f, y = rng.standard_normal((m, k)) + 0.3, rng.integers(0, k, m)
    found = soft_error(f, y, 3.0)
    centred = f - f.mean(axis=1, keepdims=True)
    constant = float(np.median(np.abs(_margins(f, y))) / np.linalg.norm(centred))
    assert found.value == pytest.approx(_plain(f, y, constant, 3.0), rel=1e-12)
    direction = rng.standard_normal((m, k))
    h = 1e-6
    ahead, behind = (_plain(f + s * h * direction, y, constant, 3.0) for s in (1, -1))
    assert float((found.gradient * direction).sum()) == pytest.approx((ahead - behind) / (2 * h), rel=1e-4, abs=1e-7)


@given(st.integers(0, 2**31), st.floats(1e-6, 1e6), st.floats(-10, 10))
def test_size_and_offset_of_outputs_do_not_matter(seed: int, factor: float, offset: float) -> None:
    rng = np.random.default_rng(seed)
    f, y = rng.standard_normal((7, 4)), rng.integers(0, 4, 7)
    one, other = soft_error(f, y), soft_error(factor * f + factor * offset, y)
    assert other.value == pytest.approx(one.value, rel=1e-6)
    assert other.accuracy == one.accuracy == (f.argmax(axis=1) == y).mean()
    np.testing.assert_allclose(factor * other.gradient, one.gradient, rtol=1e-5, atol=1e-9)
    assert abs((one.gradient * (f - f.mean(axis=1, keepdims=True))).sum()) < 1e-12


def test_sharp_limit_is_the_error_rate() -> None:
    rng = np.random.default_rng(0)
    f, y = rng.standard_normal((50, 3)), rng.integers(0, 3, 50)
    found = soft_error(f, y, 1e12)
    assert found.value == pytest.approx((f.argmax(axis=1) != y).mean())
    assert np.isfinite(found.gradient).all()


def test_equal_outputs_tell_nothing() -> None:
    found = soft_error(np.zeros((3, 2)), np.array([0, 1, 0]))
    assert found.value == 0.5
    np.testing.assert_array_equal(found.gradient, 0.0)
