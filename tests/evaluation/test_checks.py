"""The checklist: an honest predictor passes every check, and for each check one that hides or overstates fails it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.attacks.geometry import random_start
from advntk_dist.attacks.registry import bind_attack
from advntk_dist.config import AttackConfig
from advntk_dist.evaluation.checks import (
    black_box,
    checklist,
    plain_pgd,
    plateau,
    radius_sweep,
    single_step,
    transfer,
    white_box,
    within_bounds,
)
from advntk_dist.evaluation.examined_predictor import Check, ExaminedPredictor
from advntk_dist.evaluation.statistics import Accuracy
from tests.evaluation.conftest import Problem, none


@pytest.mark.slow
def test_an_honest_predictor_passes_every_check(problem: Problem, honest: ExaminedPredictor) -> None:
    told: list[Check] = []
    source = problem.predictor.with_coefficients(problem.c + 1e-3)
    done = checklist(honest, source, lambda: problem.exact, on_check=told.append)
    assert [(c.name, c.passed) for c in done] == [(c.name, True) for c in done], [c for c in done if not c.passed]
    assert told == done
    assert len({c.name for c in done}) == 8
    assert all(c.value and c.criterion and c.details for c in done)


def test_gradients_that_point_back_at_the_image_fail_the_single_step_check(problem: Problem) -> None:
    def only_on_clean_images(x: NDArray[Any], g: NDArray[Any]) -> NDArray[Any]:
        levels = 255 * (x.astype(np.float64) + 0.5)
        clean = (np.abs(levels - np.round(levels)) < 1e-3).all(axis=(1, 2, 3), keepdims=True)
        return np.where(clean, g, -g)

    found = single_step(problem.masked(only_on_clean_images))
    assert not found.passed
    assert found.details["pgd"] > found.details["fgsm"] + 0.1


def test_vanished_gradients_fail_the_black_box_check(problem: Problem, honest: ExaminedPredictor) -> None:
    found = black_box(problem.masked(none), queries=150)
    assert not found.passed
    assert found.details["square_alone"] > 0.1
    assert black_box(honest, queries=150).passed


def test_the_black_box_check_says_where_there_is_no_black_box(problem: Problem) -> None:
    subject = ExaminedPredictor(problem.predictor, problem.x, problem.y, AttackConfig(radius=2.0, norm="l1"))
    found = black_box(subject)
    assert found.criterion == "not examined"
    assert subject.outcomes == []


def test_vanished_gradients_do_not_reach_zero(problem: Problem, honest: ExaminedPredictor) -> None:
    found = radius_sweep(problem.masked(none))
    assert not found.passed
    assert found.details["robust"][-1] > 0
    fine = radius_sweep(honest)
    assert fine.passed
    assert fine.details["radii"][0] == 0
    assert fine.details["radii"][-1] == 1.0
    assert fine.details["robust"][0] == honest.clean.mean()


BIND = "advntk_dist.evaluation.examined_predictor.bind_attack"


def test_accuracy_that_rises_with_the_radius_fails_the_sweep(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients vanish between half the radius and the whole: too weak there, right again further out."""

    def bind(attack: AttackConfig) -> Any:
        weak = 0.5 * problem.attack.radius < attack.radius <= problem.attack.radius
        return bind_attack(attack if not weak else attack.model_copy(update={"radius": 1e-3}))

    monkeypatch.setattr(BIND, bind)
    found = radius_sweep(ExaminedPredictor(problem.predictor, problem.x, problem.y, problem.attack))
    assert not found.passed
    assert found.details["robust"][-1] == 0, "the end is right; the rise is what is wrong"


def test_gradients_that_are_there_only_now_and_then_fail_the_plateau(
    problem: Problem, honest: ExaminedPredictor
) -> None:
    rng = np.random.default_rng(0)
    found = plateau(problem.masked(lambda _, g: g * (rng.random((len(g), 1, 1, 1)) < 0.02)))
    assert not found.passed
    assert found.details["more_alone"] > 0.05
    assert found.details["more"] < found.details["white_box"]
    assert plateau(honest).passed


def test_a_few_images_that_more_starts_fell_fail_the_plateau(problem: Problem, honest: ExaminedPredictor) -> None:
    """Gradients of four images are 0 near them: also where the usual attacks start, but not at the last of five."""
    start = [random_start(problem.x, problem.attack.radius, "linf", problem.attack.seed, None, i) for i in range(5)]
    away = np.array([np.abs(s - problem.x).mean(axis=(1, 2, 3)) for s in start])
    first, further = away[:3].max(axis=0), away[3:].max(axis=0)
    some = np.flatnonzero(~white_box(honest) & (further > 1.02 * first))[:4]
    assert len(some) == 4
    flat = np.zeros(len(problem.y))
    flat[some] = (first[some] + further[some]) / 2

    def none_near(x: NDArray[Any], g: NDArray[Any]) -> NDArray[Any]:
        away = np.abs(x[:, None] - problem.x[None])
        nearest = away.max(axis=(2, 3, 4)).argmin(axis=1)
        far = away.mean(axis=(2, 3, 4))[np.arange(len(x)), nearest]
        return g * (far >= flat[nearest]).reshape(-1, 1, 1, 1)

    subject = problem.masked(none_near)
    found = plateau(subject)
    assert not found.passed
    assert found.details["more_alone"] == 4 / len(problem.y)
    usual, more = plain_pgd(subject), plain_pgd(subject, steps=100, restarts=5, share=0.05)
    assert subject.under(more).accuracy > Accuracy.of(subject.under(usual).robust).low


def test_masked_gradients_fail_the_transfer_check(problem: Problem, honest: ExaminedPredictor) -> None:
    found = transfer(problem.masked(none), problem.predictor)
    assert not found.passed
    assert found.details["transfer_alone"] > 0.1
    assert transfer(honest, problem.predictor).passed


@pytest.mark.parametrize("fault", ["radius", "range"])
def test_one_image_out_of_bounds_fails(
    problem: Problem, honest: ExaminedPredictor, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def bind(attack: AttackConfig) -> Any:
        def beyond(predictor: Any, x: Any, y: Any, **told: Any) -> Any:
            found = bind_attack(attack)(predictor, x, y, **told)
            if fault == "radius":
                found[3, 0, 0, 0] = x[3, 0, 0, 0] + 1.02 * attack.radius * (1 if x[3, 0, 0, 0] < 0 else -1)
            else:
                found[5, 0, 0, 0] = -0.5001
            return found

        return beyond

    subject = ExaminedPredictor(problem.predictor, problem.x, problem.y, problem.attack)
    with monkeypatch.context() as patch:
        patch.setattr(BIND, bind)
        subject.under(subject.config("fgsm"))
    found = within_bounds(subject)
    assert not found.passed
    assert (found.details["over_radius"] > 1e-3) == (fault == "radius")
    assert (found.details["over_range"] > 0) == (fault == "range")
    honest.under(honest.config("fgsm"))
    assert within_bounds(honest).passed
