"""The training loop of Adv-NTK (Fu & Wang 2024, section 5 and algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.attacks.base import Images, targets
from advntk_dist.dynamics import ATDynamics
from advntk_dist.predictor import KernelPredictor
from advntk_dist.storage import Records
from advntk_dist.training.optimiser import Optimiser

Array = NDArray[np.float64]
BoundAttack = Callable[..., Images]
"""An attack with everything but (predictor, x, y, seed, indices) filled in."""


@dataclass(frozen=True)
class StepRecord:
    """What one step saw, before its update."""

    loss: float
    grad_norm: float
    robust: float
    """Accuracy on the attacked validation batch."""
    varpi_mean: float
    varpi_max: float
    passes: float
    """Passes over the Gram matrix."""


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A finished training: varpi after the last step (n,), and one record a step."""

    varpi: Array
    history: list[StepRecord]


@dataclass(frozen=True)
class _Checkpoints:
    """varpi and history for readers, and the whole state, whose row commits a step."""

    varpi: Records
    history: Records
    state: Records

    @classmethod
    def open(cls, group: zarr.Group, steps: int, n: int, state_size: int) -> _Checkpoints:
        return cls(
            Records(group, "varpi", steps + 1, (n,)),
            Records(group, "history", steps, (len(fields(StepRecord)),)),
            # parameters, optimiser state, and the two numbers that all randomness of a step derives from
            Records(group, "state", steps + 1, (n + state_size + 2,)),
        )


def validation_batch(n_val: int, batch: int, step: int, seed: int) -> NDArray[np.int64]:
    """Indices of the validation images of a step: consecutive batches of an order that is drawn anew each epoch."""
    size = min(batch, n_val)
    per_epoch = n_val // size
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([seed, 1, epoch]).permutation(n_val)
    return order[place * size : (place + 1) * size]


def train_adv_ntk(
    dynamics: Callable[[], ATDynamics],
    predictor: Callable[[], KernelPredictor],
    x_train: Images,
    x_val: Images,
    y_val: NDArray[np.int64],
    attack: BoundAttack,
    *,
    group: zarr.Group,
    steps: int,
    lr: float,
    batch: int,
    seed: int,
    tolerance: float,
    on_step: Callable[[int, StepRecord], None] = lambda step, record: None,
) -> TrainingRun:
    """Learn varpi = |a| from a = 0 by normalised gradient steps on attacked validation batches.

    After every step varpi, the history and the whole state (parameters, optimiser, seed and step, from
    which all randomness derives) are committed to ``group``; a second call goes on from the last committed step
    and gives the same numbers as an uninterrupted one.

    Parameters
    ----------
    dynamics
        Makes the AT dynamics on the training images; called only if a step is to be taken, as is ``predictor``.
    predictor
        Makes a predictor on the training images; its coefficients are replaced.
    x_train, x_val, y_val
        Training images (n, H, W, C), validation images and their labels (m,).
    attack
        Called as attack(predictor, x, y, seed=..., indices=...).
    group
        Zarr group that holds the checkpoints.
    steps, lr, batch, seed
        Recipe.
    tolerance
        Of the solves.
    on_step
        Called after each step that is taken (not for those already committed).

    Raises
    ------
    SolverError
        If a solve misses its tolerance.
    StoreDamagedError
        If a checkpoint fails its checksum.
    """
    n = len(x_train)
    optimiser = Optimiser(lr, n)
    saved = _Checkpoints.open(group, steps, n, optimiser.state_size)
    done, a, state = _resume(saved, n, optimiser)
    if done < 0:
        _commit(saved, 0, a, state, seed)
        done = 0
    for step in range(done, steps):
        chosen = validation_batch(len(x_val), batch, step, seed)
        attacked = partial(attack, seed=_attack_seed(seed, step), indices=chosen)
        record, gradient = _examine(
            dynamics(), predictor(), x_train, x_val[chosen], y_val[chosen], attacked, np.abs(a), tolerance
        )
        # varpi = |a|; the slope of |a| at 0 counts as 1, or training would never leave its start.
        a, state = optimiser.step(a, gradient * np.where(a >= 0, 1.0, -1.0), state)
        saved.history.write(step, np.array([[getattr(record, f.name) for f in fields(record)]]))
        _commit(saved, step + 1, a, state, seed)
        on_step(step, record)
    history = saved.history.read_all()
    assert history is not None
    return TrainingRun(np.abs(a), [StepRecord(*row) for row in history])


def _examine(
    dynamics: ATDynamics,
    predictor: KernelPredictor,
    x_train: Images,
    x: Images,
    y: NDArray[np.int64],
    attack: BoundAttack,
    varpi: Array,
    tolerance: float,
) -> tuple[StepRecord, Array]:
    """Attack a batch under the current varpi; loss, accuracy and the gradient in varpi."""
    before = dynamics.operator.passes
    c = dynamics.coefficients(varpi, tol=tolerance).value
    current = predictor.with_coefficients(c)
    adversarial = attack(current, x, y)
    k_val = current.net.ntk(adversarial, x_train)
    loss, gradient = dynamics.loss_and_gradient(varpi, k_val, targets(y, c.shape[1]), tol=tolerance)
    return (
        StepRecord(
            loss=loss,
            grad_norm=float(np.linalg.norm(gradient)),
            robust=float(((k_val @ c).argmax(axis=1) == y).mean()),
            varpi_mean=float(varpi.mean()),
            varpi_max=float(varpi.max()),
            passes=float(dynamics.operator.passes - before),
        ),
        gradient,
    )


def _attack_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, 2, step]).generate_state(1, np.uint64)[0])


def _commit(saved: _Checkpoints, step: int, a: Array, state: Array, seed: int) -> None:
    saved.varpi.write(step, np.abs(a)[None])
    saved.state.write(step, np.concatenate([a, state, [seed, step]])[None])


def _resume(saved: _Checkpoints, n: int, optimiser: Optimiser) -> tuple[int, Array, Array]:
    """The last committed step (-1 for none), its parameters and its optimiser state."""
    for step in range(saved.state.rows - 1, -1, -1):
        row = saved.state.read(step)
        if row is not None:
            return step, row[0, :n], row[0, n:-2]
    return -1, np.zeros(n), optimiser.initial_state()
