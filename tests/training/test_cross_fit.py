"""Cross-fit: folds, the soft error, gradients against differences of the loss, resumption, and that it learns."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from advntk_dist import pgd
from advntk_dist.attacks.geometry import step_seed
from advntk_dist.dynamics import ATDynamics
from advntk_dist.networks import network
from advntk_dist.predictor import KernelPredictor
from advntk_dist.storage import guarded_group
from advntk_dist.training import CrossFitRecipe, StepRecord, TrainingRun, train_adv_ntk
from advntk_dist.training.cross_fit import gradient_tolerance, soft_error
from advntk_dist.training.loop import batch_of_epochs

Array = NDArray[np.float64]

N, K, FOLDS, TIME = 41, 3, 4, 0.3
_RNG = np.random.default_rng(8)
_CENTRES = _RNG.uniform(-0.3, 0.3, (K, 4, 4, 1))
Y = _RNG.integers(0, K, N)
X = _CENTRES[Y] + _RNG.uniform(-0.2, 0.2, (N, 4, 4, 1))
Y_VAL = _RNG.integers(0, K, 15)
X_VAL = _CENTRES[Y_VAL] + _RNG.uniform(-0.2, 0.2, (15, 4, 4, 1))
NET = network("mlp-2")
SETTINGS: dict[str, Any] = {
    "steps": 6, "lr": 0.05, "batch": 8, "folds": FOLDS, "clean_weight": 0.5, "seed": 3, "tolerance": 1e-12
}  # fmt: skip


class Stopped(Exception):
    """Stands for the death of the process."""


def _attack(predictor: Any, x: Any, y: Any, *, seed: int, indices: Any) -> Any:
    return pgd(predictor, x, y, radius=0.1, steps=2, step_size=0.05, loss="margin", seed=seed, indices=indices)


def _start() -> float:
    return TIME


@pytest.fixture(scope="module")
def gram() -> Array:
    return NET.compiled.matrix(X, X, "ntk", symmetric=True)


def _recipe(**keywords: Any) -> CrossFitRecipe:
    attack, time = keywords.pop("attack", _attack), keywords.pop("time", _start)
    return CrossFitRecipe(X, Y, attack, time, **(SETTINGS | keywords))


def _train(gram: Array, folder: Path, on_step: Any = lambda step, record: None, **keywords: Any) -> TrainingRun:
    dynamics = ATDynamics(gram, np.eye(K)[Y])
    blank = KernelPredictor(NET, X, np.zeros((N, K)), batch=16)
    recipe, group = _recipe(**keywords), guarded_group(folder, {"recipe": "cross-fit"})
    steps = keywords.get("steps", SETTINGS["steps"])
    return train_adv_ntk(recipe, lambda: dynamics, lambda: blank, N, group=group, steps=steps, on_step=on_step)


def test_folds_are_a_partition_of_equal_parts() -> None:
    fold = _recipe().fold
    counts = np.bincount(fold, minlength=FOLDS)
    assert counts.sum() == N
    assert counts.max() - counts.min() <= 1
    assert not np.array_equal(fold, _recipe(seed=4).fold)


def test_more_folds_than_images_leave_one_image_out() -> None:
    assert np.bincount(_recipe(folds=1000).fold).tolist() == [1] * N


def test_every_second_step_attacks_validation_images() -> None:
    """The first, third, ... see as many as a fold has, under the network of all folds; the others, folds in turn."""
    recipe, alone = _recipe(validation=(X_VAL, Y_VAL), batch=6), _recipe(batch=6)
    seen: list[int] = []
    for step in range(4 * FOLDS):
        left_out, x, y, indices = recipe.held_out(step)
        if step % 2:
            for ours, theirs in zip((left_out, x, y, indices), alone.held_out(step // 2), strict=True):
                np.testing.assert_array_equal(ours, theirs)
        else:
            assert not left_out.any()
            np.testing.assert_array_equal(x, X_VAL[indices])
            np.testing.assert_array_equal(y, Y_VAL[indices])
            assert len(indices) == 6
            seen += indices.tolist()
    assert set(seen) == set(range(15)), "two batches of an epoch leave three out, others in each"
    few = _recipe(validation=(X_VAL[:4], Y_VAL[:4])).held_out(0)
    assert sorted(few[3]) == [0, 1, 2, 3], "all, where there are fewer than a batch"


@pytest.mark.parametrize("clean_weight", [0.0, 0.5])
def test_gradient_on_validation_images(gram: Array, clean_weight: float) -> None:
    """Every training image has one, and its size is that of the loss's differences, at attacked images held fixed."""
    fixed = np.clip(X_VAL + 0.05, -0.5, 0.5)
    recipe = _recipe(
        validation=(X_VAL, Y_VAL), clean_weight=clean_weight, batch=100, attack=lambda *a, indices, **k: fixed[indices]
    )
    a = np.log(TIME) + 0.3 * np.random.default_rng(1).standard_normal(N)
    dynamics, blank = ATDynamics(gram, np.eye(K)[Y]), KernelPredictor(NET, X, np.zeros((N, K)), batch=16)
    record, gradient = recipe.examine(2, a, dynamics, blank)
    assert (gradient != 0).all()
    chosen = recipe.held_out(2)[3]
    parts = [(1.0, NET.ntk(fixed[chosen], X)), (clean_weight, NET.ntk(X_VAL[chosen], X))]
    c = dynamics.coefficients(np.exp(a), tol=1e-12).value
    assert record.loss == pytest.approx(sum(w * soft_error(k @ c, Y_VAL[chosen]).value for w, k in parts), rel=1e-9)
    slope = sum(w * k.T @ soft_error(k @ c, Y_VAL[chosen]).gradient for w, k in parts)
    direction, h = np.random.default_rng(2).standard_normal(N), 1e-5
    ahead, behind = (dynamics.coefficients(np.exp(a + s * h * direction), tol=1e-12).value for s in (1, -1))
    expected = float((slope * (ahead - behind)).sum() / (2 * h))
    assert float(gradient @ direction) == pytest.approx(expected, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("clean_weight", [0.0, 0.5])
@pytest.mark.parametrize("step", [0, 5])
def test_gradient_against_differences_through_a_dense_exponential(gram: Array, step: int, clean_weight: float) -> None:
    """The loss written out: a network trained without the fold, the same adversarial images, sizes held fixed."""
    from scipy.linalg import expm

    recipe = _recipe(clean_weight=clean_weight)
    a = np.log(TIME) + 0.3 * np.random.default_rng(1).standard_normal(N)
    dynamics, blank = ATDynamics(gram, np.eye(K)[Y]), KernelPredictor(NET, X, np.zeros((N, K)), batch=16)
    record, gradient = recipe.examine(step, a, dynamics, blank)
    fold = step % FOLDS
    out = recipe.fold == fold
    np.testing.assert_array_equal(gradient[out], 0.0)

    def coefficients(a: Array) -> Array:
        d = np.where(out, 0.0, np.exp(a))
        return np.asarray(np.linalg.solve(gram, (np.eye(N) - expm(-gram * d[None, :])) @ np.eye(K)[Y]))

    members = np.flatnonzero(out)
    chosen = members[batch_of_epochs(len(members), 8, step // FOLDS, 3, fold)]
    assert set(chosen) <= set(members)
    c = coefficients(a)
    twins = _attack(blank.with_coefficients(c), X[chosen], Y[chosen], seed=step_seed(3, step), indices=chosen)
    kernels = [(1.0, NET.ntk(twins, X)), (clean_weight, NET.ntk(X[chosen], X))]
    slopes = [w * k.T @ soft_error(k @ c, Y[chosen]).gradient for w, k in kernels]
    assert record.loss == pytest.approx(sum(w * soft_error(k @ c, Y[chosen]).value for w, k in kernels), rel=1e-6)
    assert record.robust == (kernels[0][1] @ c).argmax(axis=1).__eq__(Y[chosen]).mean()
    direction, h = np.random.default_rng(2).standard_normal(N), 1e-5
    moved = (coefficients(a + h * direction) - coefficients(a - h * direction)) / (2 * h)
    assert float(gradient @ direction) == pytest.approx(float((sum(slopes) * moved).sum()), rel=1e-5, abs=1e-9)


def test_starts_uniform_and_first_step_has_the_asked_length(gram: Array, tmp_path: Path) -> None:
    _train(gram, tmp_path / "t")
    varpi = np.asarray(guarded_group(tmp_path / "t", {})["varpi"][:])  # type: ignore[index]
    np.testing.assert_allclose(varpi[0], TIME, rtol=1e-15)
    moves = np.sqrt((np.diff(np.log(varpi), axis=0) ** 2).mean(axis=1))
    assert moves[0] == pytest.approx(SETTINGS["lr"], rel=1e-9)
    expected = SETTINGS["lr"] * 0.5 * (1 + np.cos(np.pi * np.arange(6) / 6))
    np.testing.assert_allclose(moves, expected, rtol=1e-6)


@pytest.mark.parametrize("stop", [0, 3])
@pytest.mark.parametrize("validation", [None, (X_VAL, Y_VAL)])
def test_resumed_run_is_the_same_to_the_last_bit(gram: Array, tmp_path: Path, stop: int, validation: Any) -> None:
    def die(step: int, record: StepRecord) -> None:
        if step == stop:
            raise Stopped

    whole = _train(gram, tmp_path / "whole", validation=validation)
    with pytest.raises(Stopped):
        _train(gram, tmp_path / "t", die, validation=validation)
    taken: list[int] = []

    def never() -> float:
        raise AssertionError("the start is committed")

    run = _train(gram, tmp_path / "t", lambda step, record: taken.append(step), time=never, validation=validation)
    assert taken == list(range(stop + 1, 6))
    np.testing.assert_array_equal(run.varpi, whole.varpi)
    assert run.history == whole.history


@pytest.mark.parametrize(
    ("coefficients", "steps"), [(1e-6, 1e-3), (1e-9, 1e-6), (1e-4, 1e-3), (1e-3, 1e-3), (0.1, 0.1)]
)
def test_steps_solve_less_exactly_than_coefficients_are_wanted(coefficients: float, steps: float) -> None:
    assert gradient_tolerance(coefficients) == pytest.approx(steps)


def test_solves_to_the_tolerance_of_gradients_leave_the_training_where_it_was(gram: Array, tmp_path: Path) -> None:
    exact, loose = (
        np.log(_train(gram, tmp_path / f"{tolerance}", tolerance=tolerance).varpi / TIME)
        for tolerance in (1e-12, gradient_tolerance(1e-6))
    )
    assert exact @ loose >= 0.999 * np.linalg.norm(exact) * np.linalg.norm(loose)


def test_learns_to_distrust_wrong_labels(tmp_path: Path) -> None:
    """A tenth of the labels is wrong: left-out images want these samples trained for less long than the others."""
    rng = np.random.default_rng(0)
    n = 120
    y = rng.integers(0, K, n)
    x = _CENTRES[y] + rng.uniform(-0.2, 0.2, (n, 4, 4, 1))
    wrong = np.arange(n) < n // 10
    labels = np.where(wrong, (y + 1) % K, y)
    dynamics = ATDynamics(NET.compiled.matrix(x, x, "ntk", symmetric=True), np.eye(K)[labels])
    blank = KernelPredictor(NET, x, np.zeros((n, K)), batch=64)
    attack = partial(pgd, radius=0.05, steps=3, step_size=0.02, loss="margin")
    settings = SETTINGS | {"steps": 15, "lr": 0.1, "batch": 60, "tolerance": 1e-8}
    recipe = CrossFitRecipe(x, labels, attack, lambda: 3.0, **settings)
    group = guarded_group(tmp_path / "t", {})
    run = train_adv_ntk(recipe, lambda: dynamics, lambda: blank, n, group=group, steps=15)
    assert np.log(run.varpi[wrong]).mean() < np.log(run.varpi[~wrong]).mean() - 0.2


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
