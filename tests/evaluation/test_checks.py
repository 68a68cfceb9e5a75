"""The checklist: an honest predictor passes every check, and for each check one that hides or overstates fails it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.configured import bind_attack
from advntk_dist.config import AttackConfig
from advntk_dist.data import load_dataset
from advntk_dist.evaluation.checks import (
    Check,
    black_box,
    checklist,
    finite_differences,
    plateau,
    radius_sweep,
    single_step,
    transfer,
    within_bounds,
)
from advntk_dist.evaluation.subject import Subject
from advntk_dist.networks import network
from advntk_dist.predictor import KernelPredictor

N, M = 200, 40
RUN = AttackConfig(radius=0.15)


class Problem:
    """Digits, and predictors on 200 of them."""

    def __init__(self) -> None:
        data = load_dataset("digits")
        self.net = network("mlp-2")
        x = data.x.astype(np.float64) / 255 - 0.5
        self.x_train, self.x, self.y = x[:N], x[N : N + M].astype(np.float32), data.y[N : N + M]
        theta = np.asarray(self.net.ntk(self.x_train, self.x_train), np.float64)
        self.c = np.linalg.solve(theta + 0.3 * np.eye(N), np.eye(10)[data.y[:N]])
        self.predictor = KernelPredictor(self.net, self.x_train.astype(np.float32), self.c, batch=M)
        self.exact = KernelPredictor(self.net, self.x_train, self.c, batch=8)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem()


@pytest.fixture(scope="module")
def honest(problem: Problem) -> Subject:
    return Subject(problem.predictor, problem.x, problem.y, RUN)


class Masked:
    """A predictor of the same outputs with gradients of its own making."""

    outputs = 10

    def __init__(self, inner: KernelPredictor, gradient: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]) -> None:
        self.inner, self.gradient = inner, gradient

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        return self.inner.predict(x)

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> NDArray[Any]:
        return self.gradient(np.asarray(x), self.inner.vjp(x, cotangent))


def none(_: NDArray[Any], g: NDArray[Any]) -> NDArray[Any]:
    return np.zeros_like(g)


def masked(problem: Problem, gradient: Callable[..., NDArray[Any]]) -> Subject:
    return Subject(Masked(problem.predictor, gradient), problem.x, problem.y, RUN)


def test_an_honest_predictor_passes_every_check(problem: Problem, honest: Subject) -> None:
    told: list[Check] = []
    source = problem.predictor.with_coefficients(problem.c + 1e-3)
    done = checklist(honest, source, lambda: problem.exact, on_check=told.append)
    assert [(c.name, c.passed) for c in done] == [(c.name, True) for c in done], [c for c in done if not c.passed]
    assert told == done
    assert len({c.name for c in done}) == 7
    assert all(c.value and c.criterion and c.details for c in done)


def test_gradients_that_point_back_at_the_image_fail_the_single_step_check(problem: Problem) -> None:
    def only_on_clean_images(x: NDArray[Any], g: NDArray[Any]) -> NDArray[Any]:
        levels = 255 * (x.astype(np.float64) + 0.5)
        clean = (np.abs(levels - np.round(levels)) < 1e-3).all(axis=(1, 2, 3), keepdims=True)
        return np.where(clean, g, -g)

    found = single_step(masked(problem, only_on_clean_images))
    assert not found.passed
    assert found.details["pgd"] > found.details["fgsm"] + 0.1


def test_vanished_gradients_fail_the_black_box_check(problem: Problem, honest: Subject) -> None:
    found = black_box(masked(problem, none), queries=150)
    assert not found.passed
    assert found.details["square_alone"] > 0.1
    assert black_box(honest, queries=150).passed


def test_the_black_box_check_says_where_there_is_no_black_box(problem: Problem) -> None:
    subject = Subject(problem.predictor, problem.x, problem.y, AttackConfig(radius=2.0, norm="l1"))
    found = black_box(subject)
    assert found.criterion == "not examined"
    assert subject.outcomes == []


def test_vanished_gradients_do_not_reach_zero(problem: Problem, honest: Subject) -> None:
    found = radius_sweep(masked(problem, none))
    assert not found.passed
    assert found.details["left"][-1] > 0
    fine = radius_sweep(honest)
    assert fine.passed
    assert fine.details["radii"][0] == 0
    assert fine.details["radii"][-1] == 1.0
    assert fine.details["left"][0] == honest.clean.mean()


def test_accuracy_that_rises_with_the_radius_fails_the_sweep(problem: Problem) -> None:
    """Gradients vanish between half the radius and the whole: too weak there, right again further out."""

    def bind(attack: AttackConfig) -> Any:
        weak = 0.5 * RUN.radius < attack.radius <= RUN.radius
        return bind_attack(attack if not weak else attack.model_copy(update={"radius": 1e-3}))

    found = radius_sweep(Subject(problem.predictor, problem.x, problem.y, RUN, bind=bind))
    assert not found.passed
    assert found.details["left"][-1] == 0, "the end is right; the rise is what is wrong"


def test_noisy_gradients_fail_the_plateau(problem: Problem, honest: Subject) -> None:
    rng = np.random.default_rng(0)

    def mostly_noise(_: NDArray[Any], g: NDArray[Any]) -> NDArray[Any]:
        return (g + 12 * np.abs(g).mean() * rng.standard_normal(g.shape)).astype(g.dtype)

    found = plateau(masked(problem, mostly_noise))
    assert not found.passed
    assert found.details["more"] < found.details["floor"]
    assert plateau(honest).passed


@pytest.mark.parametrize(
    ("gradient", "vanished"),
    [(lambda _, g: 1.001 * g, 0), (lambda _, g: g[..., ::-1, :], 0), (none, 6)],
    ids=["a thousandth too long", "of a mirrored image", "none"],
)
def test_wrong_gradients_fail_the_differences(problem: Problem, gradient: Any, vanished: int) -> None:
    few = slice(0, 6)
    exact = Masked(problem.exact, gradient)
    found = finite_differences(exact, problem.x[few], problem.y[few], RUN.radius, "linf")
    assert not found.passed
    assert found.details["vanished"] == vanished
    fine = finite_differences(problem.exact, problem.x[few], problem.y[few], RUN.radius, "linf")
    assert fine.passed
    assert fine.details["largest"] < 1e-6


def test_outputs_in_steps_fail_the_differences(problem: Problem) -> None:
    class Rounded(Masked):
        def predict(self, x: ArrayLike) -> NDArray[np.float64]:
            return np.round(super().predict(x), 2)

    found = finite_differences(Rounded(problem.exact, lambda _, g: g), problem.x[:6], problem.y[:6], 0.1, "linf")
    assert not found.passed


def test_masked_gradients_fail_the_transfer_check(problem: Problem, honest: Subject) -> None:
    found = transfer(masked(problem, none), problem.predictor)
    assert not found.passed
    assert found.details["transfer_alone"] > 0.1
    assert transfer(honest, problem.predictor).passed


@pytest.mark.parametrize("fault", ["radius", "range"])
def test_one_image_out_of_bounds_fails(problem: Problem, honest: Subject, fault: str) -> None:
    def bind(attack: AttackConfig) -> Any:
        def beyond(predictor: Any, x: Any, y: Any, **told: Any) -> Any:
            found = bind_attack(attack)(predictor, x, y, **told)
            if fault == "radius":
                found[3, 0, 0, 0] = x[3, 0, 0, 0] + 1.02 * attack.radius * (1 if x[3, 0, 0, 0] < 0 else -1)
            else:
                found[5, 0, 0, 0] = -0.5001
            return found

        return beyond

    subject = Subject(problem.predictor, problem.x, problem.y, RUN, bind=bind)
    subject.under(subject.config("fgsm"))
    found = within_bounds(subject)
    assert not found.passed
    assert (found.details["over_radius"] > 1e-3) == (fault == "radius")
    assert (found.details["over_range"] > 0) == (fault == "range")
    honest.under(honest.config("fgsm"))
    assert within_bounds(honest).passed
