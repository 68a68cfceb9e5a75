"""The recipe that a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from advntk_dist.attacks.base import BoundAttack
from advntk_dist.attacks.geometry import Images
from advntk_dist.config import TrainConfig
from advntk_dist.training.cross_fit import CrossFitRecipe
from advntk_dist.training.loop import Recipe
from advntk_dist.training.paper import PaperRecipe


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
        Of the solves.
    """
    shared: dict[str, Any] = {"lr": config.lr, "batch": config.batch, "seed": config.seed, "tolerance": tolerance}
    if config.recipe == "paper":
        return PaperRecipe(train.x, val.x, val.y, attack, **shared)
    return CrossFitRecipe(
        train.x,
        train.y,
        attack,
        time,
        steps=config.steps,
        folds=config.folds,
        clean_weight=config.clean_weight,
        validation=(val.x, val.y) if config.validation else None,
        **shared,
    )
