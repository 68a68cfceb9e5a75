"""Adversarial training of a finite network as Fu & Wang (2024) compare with: PGD, squared error, SGD with momentum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import zarr
from numpy.typing import NDArray

from advntk_dist.attacks.geometry import Images, random_start, step_seed
from advntk_dist.attacks.registry import bind_attack
from advntk_dist.attacks.request import targets
from advntk_dist.config import AttackConfig
from advntk_dist.config.finite_width import AdversarialTrainingConfig
from advntk_dist.errors import SolverError, StoreDamagedError
from advntk_dist.evaluation import MethodResult
from advntk_dist.evaluation.evaluate import evaluate
from advntk_dist.finite.networks import FiniteNetwork
from advntk_dist.finite.predictor import FinitePredictor, ascend
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.spec import step_length
from advntk_dist.storage import Records
from advntk_dist.training.loop import batch_of_epochs
from advntk_dist.training.optimiser import flatten, unflatten

LEAD = 8
"""Steps that may be waiting in the device's queue, each with its images: the count of steps is right up to these."""

Labelled = tuple[Images, NDArray[np.int64]]
"""Images (m, H, W, C), floats in [-0.5, 0.5], and labels (m,)."""


@dataclass(frozen=True)
class PointRecord:
    """An evaluation: the step, and means over the attacked training batches since the evaluation before."""

    step: float
    loss: float
    robust_train: float


@dataclass(frozen=True)
class TrainingPoint:
    """An evaluation with its accuracies."""

    record: PointRecord
    validation: MethodResult
    test: MethodResult


def optimiser(config: AdversarialTrainingConfig) -> optax.GradientTransformation:
    """SGD with momentum; weight decay is added to the gradient, and the learning rate falls in steps."""
    schedule = optax.exponential_decay(config.lr, config.lr_every, config.lr_decay, staircase=True)
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay), optax.sgd(schedule, momentum=config.momentum or None)
    )


def evaluation_steps(config: AdversarialTrainingConfig) -> list[int]:
    """Steps after which the network is evaluated: every ``evaluate_every``, and the last."""
    steps = list(range(config.evaluate_every, config.steps, config.evaluate_every))
    return [*steps, config.steps]


def train_adversarially(
    network: FiniteNetwork,
    seed: int,
    train: Labelled,
    val: Labelled,
    test: Labelled,
    config: AdversarialTrainingConfig,
    attack: AttackConfig,
    *,
    group: zarr.Group,
    batch: int,
    on_point: Callable[[int], None] = lambda point: None,
    on_step: Callable[[int], None] = lambda step: None,
) -> list[TrainingPoint]:
    """Train one network, evaluated and checkpointed every so many steps.

    Loss: the mean of the squared error over images and outputs. The outcomes of an evaluation, and then the whole
    state, are committed to ``group``; a second call goes on from there and gives the same numbers.

    Parameters
    ----------
    network, seed
        What is drawn; the seed also orders the batches and draws the random starts.
    train, val, test
        Training, validation and test images.
    config, attack
        The recipe, and the attack of training and of every evaluation.
    group
        Zarr group that holds the checkpoints.
    batch
        Images evaluated at once.
    on_point
        Called after each evaluation with its number.
    on_step
        Called with the number of steps that are done: where training starts or goes on, and after each step.

    Raises
    ------
    SolverError
        If the loss overflows.
    StoreError
        If a checkpoint cannot be written.
    """
    x, y = train
    wanted = targets(y, network.classes).astype(x.dtype)
    size, plan = min(config.batch, len(x)), evaluation_steps(config)
    program = _step(network, config, attack)
    state = _drawn(network, seed, x, config)
    history = Records(group, "history", len(plan), (len(fields(PointRecord)),))
    saved = Records(group, "state", 2, (len(flatten(state)) + 1,))  # the last two, in turn: one is always whole
    fresh, (done, state) = state, _resume(saved, state)
    if committed_points(group, len(plan)) < done:  # the states that would lead to what is damaged are gone
        done, state = 0, fresh
    if done < len(plan):
        on_step(plan[done - 1] if done else 0)
    for point in range(done, len(plan)):
        sums: list[Any] = []
        for step in range(plan[point - 1] if point else 0, plan[point]):
            chosen = batch_of_epochs(len(x), size, step, seed)
            clean = x[chosen]
            start = random_start(clean, attack.radius, attack.norm, step_seed(seed, step), chosen)
            with kernel_scope():
                state, seen = program(state, start, clean, wanted[chosen])
            sums.append(seen)
            jax.block_until_ready(sums[-LEAD:][0])
            on_step(step + 1)
        loss, robust = np.mean([[float(number) for number in seen] for seen in sums], axis=0)
        if not np.isfinite(loss):
            raise SolverError(f"finite: training overflowed before step {plan[point]}; lower finite.lr ({config.lr:g})")
        predictor = FinitePredictor(network, state[0], batch)
        _evaluate(predictor, val, attack, group, f"validation_{point}", batch)
        _evaluate(predictor, test, attack, group, f"test_{point}", batch)
        history.write(point, np.array([[plan[point], loss, robust]]))
        saved.write(point % 2, np.concatenate([flatten(state), [point + 1]])[None])
        on_point(point)
    return read_points(group, config, attack, len(val[1]), len(test[1]), batch)


def trained_predictor(
    network: FiniteNetwork, seed: int, images: Images, config: AdversarialTrainingConfig, group: zarr.Group, batch: int
) -> FinitePredictor:
    """The network as the last committed evaluation of its training left it.

    Parameters
    ----------
    network, seed, config, group
        As for :func:`train_adversarially`.
    images
        Training images (n, H, W, C).
    batch
        Images that go through the network at once.

    Raises
    ------
    StoreDamagedError
        If no sound state is committed.
    """
    fresh = _drawn(network, seed, images, config)
    saved = Records(group, "state", 2, (len(flatten(fresh)) + 1,))
    done, state = _resume(saved, fresh)
    if not done:
        raise StoreDamagedError(f"{saved.where}: no state is committed; remove this folder and run again")
    return FinitePredictor(network, state[0], batch)


def committed_points(group: zarr.Group, points: int) -> int:
    """How many evaluations of a training are committed and sound, from the first one on."""
    history = Records(group, "history", points, (len(fields(PointRecord)),))
    for point in range(points):
        outcomes = (Records.stored(group, f"{part}_{point}") for part in ("validation", "test"))
        if history.read(point) is None or any(table is None or table.read_all() is None for table in outcomes):
            return point
    return points


def read_points(
    group: zarr.Group, config: AdversarialTrainingConfig, attack: AttackConfig, n_val: int, n_test: int, batch: int
) -> list[TrainingPoint]:
    """The committed evaluations of a finished training."""
    points = len(evaluation_steps(config))
    rows = Records(group, "history", points, (len(fields(PointRecord)),)).read_all()
    assert rows is not None

    def read(name: str, images: int) -> MethodResult:
        nothing: Any = np.zeros((images, 1, 1, 1)), np.zeros(images, np.int64)
        return _evaluate(None, nothing, attack, group, name, batch)

    return [
        TrainingPoint(PointRecord(*row), read(f"validation_{i}", n_val), read(f"test_{i}", n_test))
        for i, row in enumerate(rows)
    ]


def _evaluate(
    predictor: FinitePredictor | None, part: Labelled, attack: AttackConfig, group: zarr.Group, name: str, batch: int
) -> MethodResult:
    made: Any = predictor  # evaluate() asks for nothing that only kernel predictors have
    bound = bind_attack(attack)
    return evaluate(lambda: made, *part, bound, norm=attack.norm, seed=attack.seed, group=group, name=name, batch=batch)


@lru_cache(maxsize=8)
def _step(network: FiniteNetwork, config: AdversarialTrainingConfig, attack: AttackConfig) -> Any:
    """One step: attack the batch, then descend; returns the state, and the batch's loss and robust accuracy."""
    transformation = optimiser(config)

    def loss(params: Any, x: jax.Array, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs = network.apply(params, x)
        right = outputs.argmax(axis=1) == wanted.argmax(axis=1)
        return jnp.mean((outputs - wanted) ** 2), jnp.mean(right)

    def step(state: Any, start: jax.Array, clean: jax.Array, wanted: jax.Array) -> Any:
        params, inner = state
        size = step_length(attack.radius, attack.step_size)
        aims = jnp.zeros(len(start), int)
        x = ascend(
            network, attack.norm, attack.loss, params, start, clean, wanted, aims, attack.radius, attack.steps, size
        )
        seen, gradient = jax.value_and_grad(loss, has_aux=True)(params, x, wanted)
        updates, inner = transformation.update(gradient, inner, params)
        moved = jax.tree.map(lambda p, u: p + u.astype(p.dtype), params, updates)
        return (moved, inner), seen

    return jax.jit(step)


def _drawn(network: FiniteNetwork, seed: int, images: Images, config: AdversarialTrainingConfig) -> Any:
    """Weights for such images, and the optimiser's state, before the first step."""
    with kernel_scope():
        params = network.init(seed, images.shape[1:], images.dtype.name)
        return params, optimiser(config).init(params)


def _resume(saved: Records, like: Any) -> tuple[int, Any]:
    """Evaluations that are done, and the state after the last of them."""
    rows = [row for row in (saved.read(place) for place in range(saved.rows)) if row is not None]
    if not rows:
        return 0, like
    newest = max(rows, key=lambda row: float(row[0, -1]))[0]
    with kernel_scope():
        return int(newest[-1]), unflatten(newest[:-1], like)
