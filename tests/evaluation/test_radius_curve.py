"""Curves over the radius: exact where the predictor is linear, and checked where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from advntk_dist import linear
from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import largest_distance
from advntk_dist.evaluation.linear_robustness import LinearRobustness
from advntk_dist.evaluation.radius_curve import CHECKED, COLUMNS, RadiusCurve
from advntk_dist.spec import NORMS

SHAPE = (4, 3, 1)
RADIUS = {"linf": 0.05, "l2": 0.15, "l1": 0.4}


class Bent(DifferentiablePredictor):
    """f = W x + bend * (W x)^3 / 6, of three outputs."""

    def __init__(self, bend: float) -> None:
        self.weights = np.random.default_rng(1).standard_normal((3, int(np.prod(SHAPE))))
        self.bend = bend

    def predict(self, x: Any) -> Any:
        a = np.asarray(x).reshape(len(x), -1) @ self.weights.T
        return a + self.bend * a**3 / 6

    def vjp(self, x: Any, cotangent: Any) -> Any:
        a = np.asarray(x).reshape(len(x), -1) @ self.weights.T
        return ((cotangent * (1 + self.bend * a**2 / 2)) @ self.weights).reshape(np.shape(x))


def _judged(bend: float, norm: Any, wrong: int = 4) -> tuple[Any, Any, Any, RadiusCurve]:
    predictor = Bent(bend)
    x = np.random.default_rng(2).uniform(-0.4, 0.4, (60, *SHAPE))
    y = predictor.predict(x).argmax(axis=1)
    y[:wrong] = (y[:wrong] + 1) % 3
    task = LinearRobustness(RADIUS[norm], norm, 5, RADIUS[norm] / 5)
    rows = task(predictor, x, y, np.arange(60))
    assert rows.shape == (60, COLUMNS)
    return predictor, x, y, RadiusCurve(rows, RADIUS[norm], norm)


@pytest.mark.parametrize("norm", NORMS)
def test_of_a_linear_predictor_curves_are_exact(norm: Any) -> None:
    predictor, x, y, found = _judged(0.0, norm)
    for radius in (0.3 * RADIUS[norm], RADIUS[norm], 1.7 * RADIUS[norm]):
        attacked = linear(predictor, x, y, radius=radius, norm=norm)
        assert found.robust(norm, radius) == (predictor.predict(attacked).argmax(axis=1) == y).mean()
    for (radius, expected, exact), share in zip(found.checked(), CHECKED, strict=True):
        assert radius == share * RADIUS[norm]
        assert expected == exact.value == found.robust(norm, radius)
    off = found.nonlinearity()
    assert off is not None
    assert off[1] < 1e-12
    assert (found.rows[:4, :3] == 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_curve_starts_at_the_clean_accuracy_and_falls(norm: Any) -> None:
    *_, found = _judged(2.0, norm, wrong=6)
    radii, robust = found.curve(norm)
    assert robust[0] == pytest.approx(54 / 60)
    assert (np.diff(robust) <= 0).all()
    assert radii[-1] >= 2 * RADIUS[norm]


def test_what_is_not_linear_shows() -> None:
    predictor, x, y, found = _judged(8.0, "linf")
    off = found.nonlinearity()
    assert off is not None
    assert off[1] > off[0] > 1e-3
    for radius, _, exact in found.checked():
        attacked = linear(predictor, x, y, radius=radius, steps=5)
        assert exact.value == pytest.approx((predictor.predict(attacked).argmax(axis=1) == y).mean(), abs=2 / 60)


def test_a_predictor_without_slopes_is_robust_at_every_radius() -> None:
    predictor = Bent(0.0)
    predictor.weights = np.zeros_like(predictor.weights)
    predictor.predict = lambda x: np.tile([0.0, 1.0, 0.5], (len(x), 1))  # type: ignore[method-assign]
    rows = LinearRobustness(0.1, "linf", 5, 0.02)(predictor, np.zeros((2, *SHAPE)), np.array([1, 2]), np.arange(2))
    whole = [largest_distance(np.zeros((1, *SHAPE)), norm) for norm in NORMS]
    np.testing.assert_array_equal(rows[:, :3], [[2 * most for most in whole], [0.0, 0.0, 0.0]])
    assert np.isfinite(rows).all()
    found = RadiusCurve(rows, 0.1, "linf")
    for norm, most in zip(NORMS, whole, strict=True):
        assert found.robust(norm, most) == 0.5
        assert found.curve(norm)[1][0] == 0.5
    assert RadiusCurve(rows[1:], 0.1, "linf").nonlinearity() is None
