"""The attack of the paper's code: named for what it is, and different from PGD in the two known ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from advntk_dist import pgd, pgd_reference
from advntk_dist.attacks.geometry import perturbation_size, random_start
from advntk_dist.errors import RequestError

Make = Callable[..., Any]

_RNG = np.random.default_rng(9)
X = _RNG.uniform(-0.3, 0.3, (12, 4, 4, 1))
Y = _RNG.integers(0, 3, 12)


def test_reaches_beyond_the_radius_but_not_beyond_twice(quadratic: Make) -> None:
    sizes = perturbation_size(pgd_reference(quadratic(), X, Y, radius=0.1), X, "linf")
    assert (sizes > 0.1).all()
    assert (sizes <= 0.2 + 1e-12).all()
    assert (perturbation_size(pgd(quadratic(), X, Y, radius=0.1), X, "linf") <= 0.1 + 1e-12).all()


@pytest.mark.parametrize("steps", [0, 1, 10])
def test_takes_one_gradient(quadratic: Make, steps: int) -> None:
    predictor = quadratic()
    pgd_reference(predictor, X, Y, radius=0.1, steps=steps)
    assert predictor.gradient_calls == min(steps, 1)
    pgd(predictor, X, Y, radius=0.1, steps=steps)
    assert predictor.gradient_calls == min(steps, 1) + steps


def test_moves_from_the_start_along_the_sign_of_its_gradient(quadratic: Make) -> None:
    predictor = quadratic(curvature=2.0)
    start = random_start(X, 0.1, "linf", 3, None)
    sign = np.sign(predictor.vjp(start, predictor.predict(start) - np.eye(3)[Y]))
    for steps, reach in ((0, 0.0), (1, 0.03), (2, 0.06), (5, 0.1)):
        expected = np.clip(start + reach * sign, -0.5, 0.5)
        adversarial = pgd_reference(predictor, X, Y, radius=0.1, steps=steps, step_size=0.03, seed=3)
        np.testing.assert_allclose(adversarial, expected, atol=1e-12)


def test_stays_in_the_pixel_range_and_in_its_dtype(quadratic: Make) -> None:
    x = np.clip(2 * X, -0.5, 0.5).astype(np.float32)
    adversarial = pgd_reference(quadratic(), x, Y, radius=0.3)
    assert adversarial.dtype == np.float32
    assert np.abs(adversarial).max() <= 0.5


def test_other_norms_are_refused(quadratic: Make) -> None:
    with pytest.raises(RequestError, match="linf only"):
        pgd_reference(quadratic(), X, Y, radius=0.1, norm="l2")
