"""The training loop that all recipes share: examine, step, commit; a second call goes on from the last commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.dynamics import ATDynamics
from advntk_dist.predictor import KernelPredictor
from advntk_dist.storage import Records
from advntk_dist.training.optimiser import Optimiser

Array = NDArray[np.float64]


@dataclass(frozen=True)
class StepRecord:
    """What one step saw, before its update."""

    loss: float
    grad_norm: float
    """Of the gradient in varpi."""
    robust: float
    """Accuracy on the attacked batch."""
    varpi_mean: float
    varpi_max: float
    passes: float
    """Passes over the Gram matrix."""

    @classmethod
    def of(cls, loss: float, gradient: Array, robust: float, varpi: Array, passes: int) -> StepRecord:
        """The record of a loss whose gradient in varpi is known, at effective training times varpi, (n,) both."""
        return cls(
            loss, float(np.linalg.norm(gradient)), robust, float(varpi.mean()), float(varpi.max()), float(passes)
        )


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A finished training: varpi after the last step (n,), and one record a step."""

    varpi: Array
    history: list[StepRecord]


class Recipe(Protocol):
    """What tells one way of training from another: parameters a (n,) of varpi, and what a step looks at."""

    @property
    def seed(self) -> int:
        """All randomness of a step derives from this and from the step."""
        ...

    @property
    def optimiser(self) -> Optimiser:
        """Takes the parameters a step further."""
        ...

    def start(self) -> Array:
        """Parameters (n,) before the first step."""
        ...

    def varpi(self, a: Array) -> Array:
        """Effective training times (n,), >= 0, of parameters."""
        ...

    def examine(
        self, step: int, a: Array, dynamics: ATDynamics, predictor: KernelPredictor
    ) -> tuple[StepRecord, Array]:
        """Attack a batch under the current varpi: what was seen, and the gradient of the loss in a (n,)."""
        ...


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

    def commit(self, step: int, recipe: Recipe, a: Array, state: Array) -> None:
        self.varpi.write(step, recipe.varpi(a)[None])
        self.state.write(step, np.concatenate([a, state, [recipe.seed, step]])[None])

    def resume(self, n: int) -> tuple[int, Array, Array] | None:
        """The last step up to which everything is committed, its parameters and its optimiser state."""
        done, found = 0, None
        while (row := self.state.read(done)) is not None and self.varpi.read(done) is not None:
            found = done, row[0, :n], row[0, n:-2]
            if done + 1 == self.state.rows or self.history.read(done) is None:
                break
            done += 1
        return found


def train_adv_ntk(
    recipe: Recipe,
    dynamics: Callable[[], ATDynamics],
    predictor: Callable[[], KernelPredictor],
    n: int,
    *,
    group: zarr.Group,
    steps: int,
    on_step: Callable[[int, StepRecord], None] = lambda step, record: None,
) -> TrainingRun:
    """Learn varpi by a recipe.

    After every step varpi, the history and the whole state (parameters, optimiser, seed and step) are committed to
    ``group``; a second call goes on from the last committed step and gives the same numbers as an uninterrupted one.

    Parameters
    ----------
    recipe
        How: :class:`advntk_dist.training.PaperRecipe` or :class:`advntk_dist.training.CrossFitRecipe`.
    dynamics
        Makes the AT dynamics on the training images; called only if a step is to be taken, as is ``predictor``.
    predictor
        Makes a predictor on the training images; its coefficients are replaced.
    n
        Number of training images.
    group
        Zarr group that holds the checkpoints.
    steps
        Number of steps.
    on_step
        Called after each step that is taken (not for those already committed).

    Raises
    ------
    SolverError
        If a solve misses its tolerance.
    StoreError
        If checkpoints cannot be written.
    """
    optimiser = recipe.optimiser
    saved = _Checkpoints.open(group, steps, n, optimiser.state_size)
    found = saved.resume(n)
    if found is None:
        found = 0, recipe.start(), optimiser.initial_state()
        saved.commit(found[0], recipe, *found[1:])
    done, a, state = found
    for step in range(done, steps):
        record, gradient = recipe.examine(step, a, dynamics(), predictor())
        a, state = optimiser.step(a, gradient, state)
        saved.history.write(step, np.array([[getattr(record, f.name) for f in fields(record)]]))
        saved.commit(step + 1, recipe, a, state)
        on_step(step, record)
    history = saved.history.read_all()
    assert history is not None
    return TrainingRun(recipe.varpi(a), [StepRecord(*row) for row in history])


def batch_of_epochs(size: int, batch: int, step: int, seed: int, *more: int) -> NDArray[np.int64]:
    """Which of ``size`` images a step sees: consecutive batches of an order that is drawn anew each epoch.

    The order derives from seed, epoch and ``more``.
    """
    length = min(batch, size)
    per_epoch = size // length
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([seed, 1, epoch, *more]).permutation(size)
    return order[place * length : (place + 1) * length]
