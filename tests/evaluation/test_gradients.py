"""Input gradients under examination: against differences in float64, and in float32 against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.evaluation.examined_predictor import Check
from advntk_dist.evaluation.gradient_checks import finite_differences, single_precision
from tests.evaluation.conftest import Masked, Problem, none

FEW = slice(0, 6)


@pytest.mark.parametrize(
    ("gradient", "vanished"),
    [(lambda _, g: 1.001 * g, 0), (lambda _, g: g[..., ::-1, :], 0), (none, 6)],
    ids=["a thousandth too long", "of a mirrored image", "none"],
)
def test_wrong_gradients_fail_the_differences(problem: Problem, gradient: Any, vanished: int) -> None:
    exact = Masked(problem.exact, gradient)
    found = finite_differences(exact, problem.x[FEW], problem.y[FEW], problem.attack.radius, "linf")
    assert not found.passed
    assert found.details["vanished"] == vanished
    fine = finite_differences(problem.exact, problem.x[FEW], problem.y[FEW], problem.attack.radius, "linf")
    assert fine.passed
    assert fine.details["largest"] < 1e-6


def test_outputs_in_steps_fail_the_differences(problem: Problem) -> None:
    class Rounded(Masked):
        def predict(self, x: ArrayLike) -> NDArray[np.float64]:
            return np.round(super().predict(x), 2)

    found = finite_differences(Rounded(problem.exact, lambda _, g: g), problem.x[FEW], problem.y[FEW], 0.1, "linf")
    assert not found.passed


def compared(problem: Problem, predictor: Any = None, exact: Any = None, **changes: Any) -> Check:
    told: dict[str, Any] = {"x": problem.x[:8], "y": problem.y[:8], "radius": problem.attack.radius, "norm": "linf"}
    return single_precision(predictor or problem.predictor, exact or problem.exact, **(told | changes))


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e-30])
def test_attacks_in_float32_get_the_directions_of_float64(problem: Problem, scale: float) -> None:
    """Also where outputs are tiny: no loss has a scale of its own."""
    found = compared(
        problem,
        problem.predictor.with_coefficients(scale * problem.c),
        problem.exact.with_coefficients(scale * problem.c),
    )
    assert found.passed
    assert found.details["losses"] == ["squared-error", "margin", "dlr", "cross-entropy"]
    assert found.details["turned"] < 1e-9
    assert (found.details["lost"], found.details["images"]) == (0, 8)


@pytest.mark.parametrize(
    ("gradient", "fault"),
    [
        (lambda _, g: g * np.float32(1e-30) * np.float32(1e-30), "lost"),
        (lambda _, g: np.where(np.arange(len(g)).reshape(-1, 1, 1, 1) == 3, np.nan, g), "lost"),
        (lambda _, g: (g.view(np.int32) & -65536).view(np.float32), "turned"),
        (lambda _, g: np.sign(g), "turned"),
        (lambda _, g: np.where(np.abs(g) < np.abs(g).max() / 20, -g, g), "flipped"),
    ],
    ids=["underflow", "one image is not a number", "8 bits", "signs alone", "small entries turned round"],
)
def test_gradients_that_float32_spoils_fail(problem: Problem, gradient: Any, fault: str) -> None:
    """Of the same outputs: the check in float64 sees nothing of it."""
    found = compared(problem, Masked(problem.predictor, gradient))
    assert not found.passed
    assert found.details[fault] > {"lost": 0, "turned": 1e-6, "flipped": 1e-3}[fault]
    assert finite_differences(problem.exact, problem.x[FEW], problem.y[FEW], problem.attack.radius, "linf").passed


def test_outputs_that_float32_spoils_fail(problem: Problem) -> None:
    """What all outputs share has no part in the margin, but takes the place of their differences."""

    class Shifted(Masked):
        def predict(self, x: ArrayLike) -> NDArray[np.float64]:
            return np.asarray((super().predict(x) + 1e6).astype(np.float32), np.float64)

    found = compared(problem, Shifted(problem.predictor, lambda _, g: g))
    assert not found.passed
    assert found.details["turned"] > 1e-3


def test_images_that_are_misclassified_are_not_examined(problem: Problem) -> None:
    y = (problem.y[:8] + np.arange(8) % 2) % 10
    found = compared(problem, y=y)
    assert found.passed
    assert found.details["images"] == 4
    nothing = compared(problem, y=(problem.y[:8] + 1) % 10)
    assert not nothing.passed
    assert nothing.details["images"] == 0


class Linear(DifferentiablePredictor):
    """Two outputs that are linear in the image, computed in a dtype."""

    outputs = 2

    def __init__(self, weights: NDArray[np.float64], dtype: str) -> None:
        self.weights = weights.astype(dtype)

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        flat = np.asarray(x).reshape(len(np.asarray(x)), -1).astype(self.weights.dtype)
        return np.asarray(flat @ self.weights, np.float64)

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> NDArray[Any]:
        return (np.asarray(cotangent).astype(self.weights.dtype) @ self.weights.T).reshape(np.asarray(x).shape)


def test_losses_that_need_more_classes_are_left_out(problem: Problem) -> None:
    weights = np.random.default_rng(0).standard_normal((64, 2))
    predictor, exact = Linear(weights, "float32"), Linear(weights, "float64")
    found = compared(problem, predictor, exact, y=exact.predict(problem.x[:8]).argmax(axis=1))
    assert found.passed
    assert found.details["losses"] == ["squared-error", "margin", "cross-entropy"]
