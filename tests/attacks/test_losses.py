"""Values and slopes of the losses, against automatic differentiation and by their definitions."""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advntk_dist.attacks.losses import LEAST_OUTPUTS, check_loss, loss_and_slope
from advntk_dist.attacks.request import targets
from advntk_dist.errors import RequestError
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.spec import TARGETED
from advntk_dist.spec import Loss as LossName

LOSSES: tuple[LossName, ...] = get_args(LossName)
SCALE_FREE: tuple[LossName, ...] = ("dlr", "cross-entropy", "dlr-targeted")
M, K = 12, 6
_RNG = np.random.default_rng(3)
F = _RNG.standard_normal((M, K))
Y = _RNG.integers(0, K, M)
T = (Y + 1 + _RNG.integers(0, K - 1, M)) % K
WANTED = np.eye(K)[Y]


@partial(jax.jit, static_argnums=0)
def traced_and_differentiated(loss: LossName, f: Any) -> Any:
    """Values and slopes as JAX traces them, and the derivative of the values."""
    return loss_and_slope(loss, f, WANTED, T), jax.grad(lambda g: loss_and_slope(loss, g, WANTED, T)[0].sum())(f)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_slopes_are_those_of_the_values(loss: LossName, scale: float) -> None:
    value, slope = loss_and_slope(loss, scale * F, WANTED, T)
    with kernel_scope():
        (traced, slopes), expected = traced_and_differentiated(loss, scale * F)
    assert value.dtype == slope.dtype == np.float64
    np.testing.assert_allclose(traced, value, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(slopes, slope, rtol=1e-9, atol=1e-12 / scale)
    np.testing.assert_allclose(slope, expected, rtol=1e-9, atol=1e-12 / scale)


def _by_definition(loss: LossName, f: Any, y: int, t: int) -> float:
    ordered = np.sort(f)[::-1]
    other = max(f[j] for j in range(len(f)) if j != y)
    if loss == "squared-error":
        return float(0.5 * ((f - np.eye(len(f))[y]) ** 2).sum())
    if loss == "cross-entropy":
        g = 10 * f / (f.max() - f.min())
        return float(-np.log(np.exp(g[y]) / np.exp(g).sum()))
    rise = f[t] - f[y] if loss in TARGETED else other - f[y]
    if loss == "dlr":
        return float(rise / (ordered[0] - ordered[2]))
    if loss == "dlr-targeted":
        return float(rise / (ordered[0] - (ordered[2] + ordered[3]) / 2))
    return float(rise)


@pytest.mark.parametrize("loss", LOSSES)
def test_values_by_definition(loss: LossName) -> None:
    expected = [_by_definition(loss, f, y, t) for f, y, t in zip(F, Y, T, strict=True)]
    np.testing.assert_allclose(loss_and_slope(loss, F, WANTED, T)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("loss", SCALE_FREE)
@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-9, 1e9), shift=st.floats(-10, 10))
def test_scale_and_common_shift_of_outputs_change_nothing(loss: LossName, scale: float, shift: float) -> None:
    value, slope = loss_and_slope(loss, F, WANTED, T)
    other, other_slope = loss_and_slope(loss, scale * (F + shift), WANTED, T)
    np.testing.assert_allclose(other, value, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(scale * other_slope, slope, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("loss", ["margin", "dlr"])
def test_sign_says_whether_an_image_is_misclassified(loss: LossName) -> None:
    value, _ = loss_and_slope(loss, F, WANTED, T)
    np.testing.assert_array_equal(value > 0, F.argmax(axis=1) != Y)


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_outputs_give_finite_slopes_that_lead_away(loss: LossName) -> None:
    value, slope = loss_and_slope(loss, np.zeros((M, K)), WANTED, T)
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()
    assert (slope[np.arange(M), Y] < 0).all()


@pytest.mark.parametrize("loss", ["margin", "dlr", "cross-entropy", "margin-targeted"])
def test_a_slope_lowers_the_true_class_of_an_image_that_is_right(loss: LossName) -> None:
    right = F.copy()
    right[np.arange(M), Y] = F.max(axis=1) + 0.5
    _, slope = loss_and_slope(loss, right, WANTED, T)
    assert (slope[np.arange(M), Y] < 0).all()
    assert (np.where(WANTED > 0, -np.inf, slope).max(axis=1) > 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_outputs_that_are_too_few(loss: LossName) -> None:
    least = LEAST_OUTPUTS[loss]
    y = np.zeros(3, np.int64)
    aims = np.ones(3, np.int64) if loss in TARGETED else None
    np.testing.assert_array_equal(check_loss(loss, least, y, aims), y if aims is None else aims)
    if least > 1:
        with pytest.raises(RequestError, match=rf"attack.loss: {loss} needs at least {least} outputs"):
            check_loss(loss, least - 1, y, aims)


@pytest.mark.parametrize(
    ("loss", "towards", "words"),
    [
        ("hinge", None, "no loss 'hinge'; there are squared-error, margin"),
        ("margin", T, "moves towards no class"),
        ("margin-targeted", None, "needs one class an image"),
        ("margin-targeted", T[:3], "towards must hold one class"),
        ("margin-targeted", Y, "not its own"),
        ("margin-targeted", T + K, f"from 0 to {K - 1}"),
        ("margin-targeted", T.astype(float), "towards"),
    ],
)
def test_impossible_requests(loss: str, towards: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        check_loss(loss, K, targets(Y, K, M).argmax(axis=1), towards)
