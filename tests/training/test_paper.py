"""The paper's recipe step by step, and resumption that changes nothing to the last bit."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist import pgd
from advntk_dist.attacks.geometry import step_seed
from advntk_dist.dynamics import ATDynamics
from advntk_dist.errors import SolverError, StoreMismatchError
from advntk_dist.networks import network
from advntk_dist.predictor import KernelPredictor
from advntk_dist.storage import guarded_group
from advntk_dist.training import PaperRecipe, StepRecord, TrainingRun, train_adv_ntk
from advntk_dist.training.loop import batch_of_epochs
from advntk_dist.training.optimiser import Optimiser, normalised

Array = NDArray[np.float64]

N, M, K, STEPS = 30, 20, 3, 6
LR, BATCH, SEED, TOLERANCE = 0.5, 8, 3, 1e-8
_RNG = np.random.default_rng(6)
_CENTRES = _RNG.uniform(-0.3, 0.3, (K, 4, 4, 1))
Y_TRAIN, Y_VAL = _RNG.integers(0, K, N), _RNG.integers(0, K, M)
X_TRAIN = (_CENTRES[Y_TRAIN] + _RNG.uniform(-0.2, 0.2, (N, 4, 4, 1))).astype(np.float32)
X_VAL = (_CENTRES[Y_VAL] + _RNG.uniform(-0.2, 0.2, (M, 4, 4, 1))).astype(np.float32)
ATTACK = partial(pgd, radius=0.1, steps=2, step_size=0.05)
NET = network("mlp-2")


class Stopped(Exception):
    """Stands for the death of the process."""


@pytest.fixture(scope="module")
def gram() -> NDArray[np.float32]:
    return NET.compiled.matrix(X_TRAIN, X_TRAIN, "ntk", symmetric=True)


def _train(gram: Any, folder: Path, **keywords: Any) -> TrainingRun:
    dynamics = keywords.pop("dynamics", None) or ATDynamics(gram, np.eye(K)[Y_TRAIN])
    predictor = KernelPredictor(NET, X_TRAIN, np.zeros((N, K)), batch=BATCH)
    settings = {"lr": LR, "batch": BATCH, "seed": SEED, "tolerance": TOLERANCE}
    settings |= {k: keywords.pop(k) for k in list(keywords) if k in settings}
    recipe = PaperRecipe(X_TRAIN, X_VAL, Y_VAL, ATTACK, **settings)  # type: ignore[arg-type]
    group = guarded_group(folder, {"recipe": "paper"})
    return train_adv_ntk(recipe, lambda: dynamics, lambda: predictor, N, group=group, **({"steps": STEPS} | keywords))


@pytest.fixture(scope="module")
def uninterrupted(gram: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRun, Path]:
    folder = tmp_path_factory.mktemp("training") / "train.zarr"
    return _train(gram, folder), folder


def _rows(folder: Path, name: str) -> Array:
    return np.asarray(guarded_group(folder, {})[name][:])  # type: ignore[index]


def _stop_after(step: int) -> Any:
    def on_step(done: int, record: StepRecord) -> None:
        if done == step:
            raise Stopped

    return on_step


def test_recipe_step_by_step(gram: Any, uninterrupted: tuple[TrainingRun, Path]) -> None:
    dynamics, a = ATDynamics(gram, np.eye(K)[Y_TRAIN]), np.zeros(N)
    varpi = _rows(uninterrupted[1], "varpi")
    for step in range(3):
        np.testing.assert_allclose(varpi[step], np.abs(a), rtol=1e-6, atol=1e-9)
        chosen = batch_of_epochs(M, BATCH, step, SEED)
        c = dynamics.coefficients(np.abs(a), tol=TOLERANCE).value
        attacked = ATTACK(
            KernelPredictor(NET, X_TRAIN, c, batch=BATCH), X_VAL[chosen], Y_VAL[chosen],
            seed=step_seed(SEED, step), indices=chosen,
        )  # fmt: skip
        k_val = NET.ntk(attacked, X_TRAIN)
        loss, gradient = dynamics.loss_and_gradient(np.abs(a), k_val, np.eye(K)[Y_VAL[chosen]], TOLERANCE)
        record = uninterrupted[0].history[step]
        assert (record.loss, record.grad_norm) == pytest.approx((loss, np.linalg.norm(gradient)), rel=1e-6)
        assert record.robust == pytest.approx(((k_val @ c).argmax(axis=1) == Y_VAL[chosen]).mean())
        assert (record.varpi_mean, record.varpi_max) == pytest.approx((np.abs(a).mean(), np.abs(a).max()))
        slope = gradient * np.where(a < 0, -1.0, 1.0)
        a = a - LR * slope / (np.linalg.norm(slope) + 1e-8)


def test_first_step_leaves_zero(uninterrupted: tuple[TrainingRun, Path]) -> None:
    varpi = _rows(uninterrupted[1], "varpi")
    np.testing.assert_array_equal(varpi[0], 0.0)
    assert np.linalg.norm(varpi[1]) == pytest.approx(LR, rel=1e-6)
    np.testing.assert_array_equal(uninterrupted[0].varpi, varpi[-1])
    assert (varpi >= 0).all()


def test_history_has_one_finite_record_a_step(uninterrupted: tuple[TrainingRun, Path]) -> None:
    history = uninterrupted[0].history
    assert len(history) == STEPS
    assert history[0].varpi_max == 0.0
    assert history[0].loss == pytest.approx(0.5)
    assert all(record.passes >= 1 for record in history[1:])
    assert history[-1].loss < history[0].loss


def test_on_step_sees_each_step_once(gram: Any, tmp_path: Path, uninterrupted: tuple[TrainingRun, Path]) -> None:
    seen: list[tuple[int, StepRecord]] = []
    run = _train(gram, tmp_path / "t", on_step=lambda step, record: seen.append((step, record)))
    assert seen == list(enumerate(run.history))
    _assert_same(run, uninterrupted[0])


def _assert_same(a: TrainingRun, b: TrainingRun) -> None:
    np.testing.assert_array_equal(a.varpi, b.varpi)
    assert a.history == b.history


@pytest.mark.parametrize("stop", range(STEPS))
def test_resumed_run_is_the_same_to_the_last_bit(
    gram: Any, tmp_path: Path, uninterrupted: tuple[TrainingRun, Path], stop: int
) -> None:
    with pytest.raises(Stopped):
        _train(gram, tmp_path / "t", on_step=_stop_after(stop))
    taken: list[int] = []
    run = _train(gram, tmp_path / "t", on_step=lambda step, record: taken.append(step))
    assert taken == list(range(stop + 1, STEPS))
    _assert_same(run, uninterrupted[0])
    for name in ("varpi", "history", "state"):
        np.testing.assert_array_equal(_rows(tmp_path / "t", name), _rows(uninterrupted[1], name))


@pytest.mark.parametrize("written", [["varpi"], ["varpi", "history"], []])
def test_death_before_the_state_is_committed_repeats_the_step(
    gram: Any, tmp_path: Path, uninterrupted: tuple[TrainingRun, Path], written: list[str]
) -> None:
    with pytest.raises(Stopped):
        _train(gram, tmp_path / "t", on_step=_stop_after(2))
    for name, row in (("varpi", 3), ("history", 2), ("state", 3)):
        if name not in written:
            (tmp_path / "t" / name / "c" / str(row) / "0").unlink()
    _assert_same(_train(gram, tmp_path / "t"), uninterrupted[0])


def test_finished_run_computes_nothing(gram: Any, tmp_path: Path, uninterrupted: tuple[TrainingRun, Path]) -> None:
    def never() -> Any:
        raise AssertionError("nothing is to be made")

    _train(gram, tmp_path / "t")
    group = guarded_group(tmp_path / "t", {})
    recipe = PaperRecipe(X_TRAIN, X_VAL, Y_VAL, never, lr=LR, batch=BATCH, seed=SEED, tolerance=TOLERANCE)
    again = train_adv_ntk(recipe, never, never, N, group=group, steps=STEPS, on_step=never)  # type: ignore[arg-type]
    _assert_same(again, uninterrupted[0])


@pytest.mark.parametrize(("name", "row", "left"), [("state", 2, 1), ("history", 0, 0), ("varpi", 1, 0)])
def test_training_goes_on_from_the_last_step_before_damage(
    gram: Any, tmp_path: Path, uninterrupted: tuple[TrainingRun, Path], name: str, row: int, left: int
) -> None:
    _train(gram, tmp_path / "t")
    chunk = tmp_path / "t" / name / "c" / str(row) / "0"
    data = bytearray(chunk.read_bytes())
    data[9] ^= 1
    chunk.write_bytes(bytes(data))
    taken: list[int] = []
    _assert_same(_train(gram, tmp_path / "t", on_step=lambda step, _: taken.append(step)), uninterrupted[0])
    assert taken == list(range(left, STEPS))


def test_other_number_of_steps_is_another_training(gram: Any, tmp_path: Path) -> None:
    _train(gram, tmp_path / "t", steps=1)
    with pytest.raises(StoreMismatchError, match="shape differs"):
        _train(gram, tmp_path / "t", steps=2)


def test_failed_solve_is_loud(gram: Any, tmp_path: Path) -> None:
    with pytest.raises(SolverError, match="max_passes"):
        _train(gram, tmp_path / "t", dynamics=ATDynamics(gram, np.eye(K)[Y_TRAIN], max_passes=1), lr=100.0)


def test_seed_matters(gram: Any, tmp_path: Path, uninterrupted: tuple[TrainingRun, Path]) -> None:
    assert not np.array_equal(_train(gram, tmp_path / "t", seed=SEED + 1).varpi, uninterrupted[0].varpi)


@pytest.mark.parametrize(("n_val", "batch"), [(20, 8), (20, 20), (20, 64), (7, 1)])
def test_validation_batches_shuffle_anew_each_epoch(n_val: int, batch: int) -> None:
    size = min(batch, n_val)
    per_epoch = n_val // size
    epochs = []
    for epoch in range(3):
        chosen = [batch_of_epochs(n_val, batch, epoch * per_epoch + place, 5) for place in range(per_epoch)]
        assert all(len(b) == size for b in chosen)
        together = np.concatenate(chosen)
        assert len(np.unique(together)) == len(together), "no image twice an epoch"
        assert together.min() >= 0
        assert together.max() < n_val
        epochs.append(together)
    assert not np.array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(batch_of_epochs(n_val, batch, 1, 5), batch_of_epochs(n_val, batch, 1, 5))


def test_attack_seeds_differ_between_steps() -> None:
    assert len({step_seed(seed, step) for seed in range(20) for step in range(50)}) == 1000


def test_normalised_step() -> None:
    optimiser = Optimiser(normalised(0.1), 3)
    gradient = np.array([3.0, 0.0, -4.0])
    a, state = optimiser.step(np.ones(3), gradient, optimiser.initial_state())
    np.testing.assert_allclose(a, 1 - 0.1 * gradient / (5 + 1e-8), rtol=1e-15)
    assert a.dtype == np.float64
    assert state.shape == (optimiser.state_size,)
    still, _ = optimiser.step(np.ones(3), np.zeros(3), state)
    np.testing.assert_array_equal(still, 1.0)
    tiny, _ = optimiser.step(np.zeros(3), np.full(3, 1e-12), state)
    assert np.abs(tiny).max() < 1e-4, "1e-8 in the denominator keeps vanishing gradients small"
