"""Auto-PGD keeps its own promises: checkpoints, the best point, halved steps, at least the strength of PGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from advntk_dist import apgd, pgd
from advntk_dist.attacks.apgd import ApgdState, checkpoints
from advntk_dist.attacks.losses import loss_and_slope
from advntk_dist.attacks.request import AttackRequest

Make = Callable[..., Any]
M, SHAPE, K = 9, (4, 4, 1), 4
X = np.random.default_rng(4).uniform(-0.5, 0.5, (M, *SHAPE))
RADIUS = {"linf": 0.1, "l2": 0.4, "l1": 1.0}


def _after(predictor: Any, norm: Any, steps: int) -> ApgdState:
    y = predictor.predict(X).argmax(axis=1)
    request = AttackRequest.of(predictor, X, y, radius=RADIUS[norm], steps=steps, norm=norm, loss="margin")
    state = ApgdState(request, request.random_start(0))
    state.run(steps)
    return state


def test_checkpoints_of_the_paper() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]
    assert checkpoints(0) == [0]


@pytest.mark.parametrize("norm", list(RADIUS))
def test_the_best_loss_never_falls_and_is_that_of_the_best_point(quadratic: Make, norm: Any) -> None:
    predictor = quadratic(SHAPE, K, 1, 3.0)
    seen: list[Any] = []
    inner = predictor.predict
    wanted = np.eye(K)[inner(X).argmax(axis=1)]

    def predict(x: Any) -> Any:
        seen.append(np.array(x))
        return inner(x)

    predictor.predict = predict
    state = _after(predictor, norm, 60)
    best = loss_and_slope("margin", inner(state.best), wanted, None)[0]
    np.testing.assert_allclose(best, state.best_loss, atol=1e-12)
    kept = [i for i in range(M) if best[i] < 0]
    whole = [points for points in seen[1:] if len(points) == M]
    for i in kept:
        losses = [loss_and_slope("margin", inner(p[i : i + 1]), wanted[i : i + 1], None)[0][0] for p in whole]
        assert best[i] >= max(losses) - 1e-12


@pytest.mark.parametrize("norm", list(RADIUS))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_not_weaker_than_pgd_of_as_many_steps(quadratic: Make, norm: Any, seed: int) -> None:
    predictor = quadratic(SHAPE, K, seed, 6.0)
    y = predictor.predict(X).argmax(axis=1)
    options: dict[str, Any] = {"radius": RADIUS[norm] / 8, "norm": norm, "loss": "margin", "steps": 50, "seed": seed}

    def margin(x: Any) -> Any:
        return loss_and_slope("margin", predictor.predict(x), np.eye(K)[y], None)[0]

    ours, theirs = margin(apgd(predictor, X, y, **options)), margin(pgd(predictor, X, y, **options))
    still = (ours < 0) & (theirs < 0)
    assert ((ours > 0) >= (theirs > 0)).all()
    assert (ours[still] >= theirs[still] - 2e-3 * np.ptp(theirs)).all(), ours - theirs


def test_steps_are_halved_where_they_lead_nowhere(quadratic: Make) -> None:
    state = _after(quadratic(SHAPE, K, 0, 0.0), "linf", 100)
    assert (state._step[state._active] < 2 * RADIUS["linf"]).all(), "the corner is reached at once"
    sparse = _after(quadratic(SHAPE, K, 0, 0.0), "l1", 100)
    assert (sparse._step[sparse._active] >= 0.1 * RADIUS["l1"] * (1 - 1e-12)).all()


def test_a_point_that_fools_is_returned(quadratic: Make) -> None:
    predictor = quadratic(SHAPE, K, 2, 3.0)
    y = predictor.predict(X).argmax(axis=1)
    found = apgd(predictor, X, y, radius=0.3, steps=30)
    assert (predictor.predict(found).argmax(axis=1) != y).all()
