"""The recipe of the paper (Fu & Wang 2024, section 5 and algorithm 1), and the one that a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.base import BoundAttack
from advntk_dist.attacks.geometry import Images, step_seed
from advntk_dist.attacks.request import targets
from advntk_dist.config import TrainConfig
from advntk_dist.dynamics import ATDynamics
from advntk_dist.predictor import KernelPredictor
from advntk_dist.training.cross_fit import CrossFitRecipe, gradient_tolerance
from advntk_dist.training.loop import Recipe, StepRecord, batch_of_epochs
from advntk_dist.training.optimiser import Optimiser, normalised

Array = NDArray[np.float64]


class PaperRecipe:
    """varpi = |a| from a = 0, by normalised gradient steps on the squared error of attacked validation batches.

    Parameters
    ----------
    x_train
        Training images (n, H, W, C).
    x_val, y_val
        Validation images (m, H, W, C) and their labels (m,).
    attack
        Called as attack(predictor, x, y, seed=..., indices=...).
    lr
        Length of a step in a.
    batch
        Validation images a step.
    seed
        Of batches and random starts.
    tolerance
        Of the solves.
    """

    def __init__(
        self,
        x_train: Images,
        x_val: Images,
        y_val: NDArray[np.int64],
        attack: BoundAttack,
        *,
        lr: float,
        batch: int,
        seed: int,
        tolerance: float,
    ) -> None:
        self.seed = seed
        self._x_train, self._x_val, self._y_val = x_train, x_val, y_val
        self._attack, self._lr, self._batch, self._tolerance = attack, lr, batch, tolerance

    @cached_property
    def optimiser(self) -> Optimiser:
        """a -= lr g / (||g|| + 1e-8)."""
        return Optimiser(normalised(self._lr), len(self._x_train))

    def start(self) -> Array:
        """Zeros (n,)."""
        return np.zeros(len(self._x_train))

    def varpi(self, a: Array) -> Array:
        """|a|, (n,)."""
        return np.abs(a)

    def examine(
        self, step: int, a: Array, dynamics: ATDynamics, predictor: KernelPredictor
    ) -> tuple[StepRecord, Array]:
        """Attack the step's validation batch: 1/(2m) || f - y ||^2 there, and its gradient in a (n,)."""
        before, varpi = dynamics.operator.passes, np.abs(a)
        chosen = batch_of_epochs(len(self._x_val), self._batch, step, self.seed)
        x, y = self._x_val[chosen], self._y_val[chosen]
        c = dynamics.coefficients(varpi, tol=self._tolerance).value
        current = predictor.with_coefficients(c)
        adversarial = self._attack(current, x, y, seed=step_seed(self.seed, step), indices=chosen)
        k_val = current.kernel(adversarial)
        loss, gradient = dynamics.loss_and_gradient(varpi, k_val, targets(y, c.shape[1]), tol=self._tolerance)
        robust = float(((k_val @ c).argmax(axis=1) == y).mean())
        record = StepRecord.of(loss, gradient, robust, varpi, dynamics.operator.passes - before)
        # varpi = |a|; the slope of |a| at 0 counts as 1, or training would never leave its start.
        return record, gradient * np.where(a >= 0, 1.0, -1.0)


class LabelledImages(Protocol):
    """Images (m, H, W, C) in [-0.5, 0.5] and their labels (m,)."""

    @property
    def x(self) -> Images:
        """The images."""
        ...

    @property
    def y(self) -> NDArray[Any]:
        """The labels."""
        ...


def recipe_of(
    config: TrainConfig,
    train: LabelledImages,
    val: LabelledImages,
    attack: BoundAttack,
    time: Callable[[], float],
    tolerance: float,
) -> Recipe:
    """The recipe, with its data.

    Parameters
    ----------
    config
        Says which recipe, and its numbers.
    train, val
        Training and validation images; the paper's recipe learns from the latter, cross-fit from the former, or from
        both where ``config.validation`` is set.
    attack
        Called as attack(predictor, x, y, seed=..., indices=...).
    time
        Gives the uniform time from which cross-fit starts; asked before its first step only.
    tolerance
        To which the paper's recipe solves; cross-fit's solves have
        :func:`advntk_dist.training.cross_fit.gradient_tolerance` of it.
    """
    shared: dict[str, Any] = {"lr": config.lr, "batch": config.batch, "seed": config.seed}
    if config.recipe == "paper":
        return PaperRecipe(train.x, val.x, val.y, attack, tolerance=tolerance, **shared)
    return CrossFitRecipe(
        train.x,
        train.y,
        attack,
        time,
        steps=config.steps,
        folds=config.folds,
        clean_weight=config.clean_weight,
        validation=(val.x, val.y) if config.validation else None,
        tolerance=gradient_tolerance(tolerance),
        **shared,
    )
