"""The AT baseline: the attack inside, the optimiser, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from advntk_dist import pgd
from advntk_dist.attacks.geometry import perturbation_size
from advntk_dist.config import AttackConfig
from advntk_dist.config.finite_width import AdversarialTrainingConfig
from advntk_dist.errors import SolverError
from advntk_dist.finite.adversarial_training import TrainingPoint, evaluation_steps, optimiser, train_adversarially
from advntk_dist.finite.networks import FiniteNetwork
from advntk_dist.finite.predictor import FinitePredictor
from advntk_dist.storage import guarded_group

NET = FiniteNetwork("mlp-2", 16, 3, 0.577, 0.0, "relu", "standard")
CONFIG = AdversarialTrainingConfig(width=16, steps=12, batch=8, lr=0.5, lr_every=6, evaluate_every=5)
ATTACK = AttackConfig(radius=0.1, steps=3)
RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 40)
X = np.clip(RNG.uniform(-0.3, 0.3, (40, 3, 3, 1)) + 0.2 * (Y - 1)[:, None, None, None], -0.5, 0.5).astype(np.float32)
PARTS = (X[:20], Y[:20]), (X[20:30], Y[20:30]), (X[30:], Y[30:])


class _StoppedError(Exception):
    pass


def train(
    folder: Path,
    stop_after: int | None = None,
    config: AdversarialTrainingConfig = CONFIG,
    on_step: Callable[[int], None] = lambda step: None,
) -> list[TrainingPoint]:
    def on_point(point: int) -> None:
        if point == stop_after:
            raise _StoppedError

    group = guarded_group(folder, {})
    return train_adversarially(NET, 3, *PARTS, config, ATTACK, group=group, batch=8, on_point=on_point, on_step=on_step)


def test_evaluations_end_with_the_last_step() -> None:
    assert evaluation_steps(CONFIG) == [5, 10, 12]
    assert evaluation_steps(CONFIG.model_copy(update={"evaluate_every": 12})) == [12]


@pytest.mark.parametrize("stop_after", [0, 1])
def test_an_interrupted_training_gives_the_same_numbers(tmp_path: Path, stop_after: int) -> None:
    undisturbed = train(tmp_path / "a.zarr")
    with pytest.raises(_StoppedError):
        train(tmp_path / "b.zarr", stop_after)
    assert train(tmp_path / "b.zarr") == undisturbed
    assert train(tmp_path / "b.zarr") == undisturbed  # finished: only read
    assert [point.record.step for point in undisturbed] == [5, 10, 12]
    assert all(point.test.max_perturbation <= ATTACK.radius + 1e-6 for point in undisturbed)


@pytest.mark.parametrize("damaged", ["history/c/0", "validation_0/c/0", "test_1/c/0", "state/c/0", "state/c/1"])
def test_damage_is_trained_again_to_the_same_numbers(tmp_path: Path, damaged: str) -> None:
    undisturbed = train(tmp_path / "a.zarr")
    (chunk, *_) = sorted(p for p in (tmp_path / "a.zarr" / damaged).rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[::-1])
    assert train(tmp_path / "a.zarr") == undisturbed


def test_steps_are_counted_from_where_training_goes_on(tmp_path: Path) -> None:
    heard: list[int] = []
    with pytest.raises(_StoppedError):
        train(tmp_path / "a.zarr", 0, on_step=heard.append)
    assert heard == [0, 1, 2, 3, 4, 5]
    heard.clear()
    train(tmp_path / "a.zarr", on_step=heard.append)
    assert heard == [5, 6, 7, 8, 9, 10, 11, 12]
    heard.clear()
    train(tmp_path / "a.zarr", on_step=heard.append)  # finished: nothing to hear
    assert heard == []


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": 150, "evaluate_every": 15, "lr_every": 1000})
    points = train(tmp_path / "a.zarr", config=config)
    assert points[-1].record.loss < 0.8 * points[0].record.loss
    assert points[-1].record.robust_train > 0.5


def test_overflow_is_an_error_that_names_the_rate(tmp_path: Path) -> None:
    with pytest.raises(SolverError, match=r"finite\.lr"):
        train(tmp_path / "a.zarr", config=CONFIG.model_copy(update={"lr": 1e30}))


def test_the_optimiser_is_momentum_with_decay_in_the_gradient_and_steps_in_the_rate() -> None:
    config = AdversarialTrainingConfig(lr=0.1, lr_decay=0.1, lr_every=2, momentum=0.9, weight_decay=0.5)
    transformation = optimiser(config)
    w, velocity = 2.0, 0.0
    ours = jax.numpy.array(2.0)
    state = transformation.init(ours)
    for step in range(5):
        gradient = float(np.sin(step))
        velocity = 0.9 * velocity + gradient + 0.5 * w
        w -= 0.1 * 0.1 ** (step // 2) * velocity
        update, state = transformation.update(jax.numpy.array(gradient), state, ours)
        ours = ours + update
        assert float(ours) == pytest.approx(w, rel=1e-5)


@pytest.mark.parametrize(("norm", "loss"), [("linf", "squared-error"), ("l2", "margin"), ("l1", "cross-entropy")])
def test_attack_on_the_device_is_the_fields_pgd(norm: Any, loss: Any) -> None:
    """Without the predictor's own ascent it goes step by step."""
    predictor = FinitePredictor(NET, NET.init(0, X.shape[1:], "float64"), batch=16)
    x = X.astype(np.float64)
    stepwise: Any = SimpleNamespace(predict=predictor.predict, vjp=predictor.vjp)
    arguments: dict[str, Any] = {"radius": 0.2, "steps": 4, "step_size": 0.06, "norm": norm, "loss": loss, "seed": 1}
    ours = pgd(predictor, x, Y, **arguments)
    np.testing.assert_allclose(ours, pgd(stepwise, x, Y, **arguments), atol=1e-12)
    assert perturbation_size(ours, x, norm).max() <= 0.2 + 1e-12
    assert np.abs(ours).max() <= 0.5
