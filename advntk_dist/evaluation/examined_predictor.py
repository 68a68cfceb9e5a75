"""A predictor under examination: attacks on the same images, each done once and kept, for paired comparisons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import HIGH, LOW, Images, perturbation_size
from advntk_dist.attacks.registry import bind_attack
from advntk_dist.config import AttackConfig
from advntk_dist.evaluation.evaluator import is_right
from advntk_dist.grid import spans

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of an attack on n images.

    Attributes
    ----------
    attack
        The attack.
    robust
        Which images (n,) are still classified correctly; clean errors are not.
    sizes
        Sizes (n,) of the perturbations, in the attack's norm.
    outside
        How far each image (n,) leaves the pixel range; 0 or less if it does not.
    """

    attack: AttackConfig
    robust: Flags
    sizes: NDArray[np.float64]
    outside: NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        """Fraction of the images that are robust."""
        return float(self.robust.mean())


class ExaminedPredictor:
    """A predictor with images and labels.

    Parameters
    ----------
    predictor
        What is examined.
    x, y
        Images (n, H, W, C) as floats in [-0.5, 0.5], and labels (n,).
    attack
        The run's attack: radius, norm and seed of all others.
    batch
        Images attacked at once.
    on_outcome
        Called after each attack.
    """

    def __init__(
        self,
        predictor: DifferentiablePredictor,
        x: Images,
        y: NDArray[np.int64],
        attack: AttackConfig,
        *,
        batch: int = 128,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self.predictor, self.x, self.y, self.attack = predictor, x, y, attack
        self._batch, self._on_outcome = batch, on_outcome
        self._kept: dict[str, Outcome] = {}
        self.clean = is_right(predictor, x, y)[:, 0] > 0

    @property
    def outcomes(self) -> list[Outcome]:
        """Everything that was done so far."""
        return list(self._kept.values())

    @property
    def classes(self) -> int:
        """Outputs of the predictor."""
        return self.predictor.predict(self.x[:1]).shape[1]

    def config(self, name: str, **changes: Any) -> AttackConfig:
        """An attack with the run's radius, norm and seed."""
        shared = {"radius": self.attack.radius, "norm": self.attack.norm, "seed": self.attack.seed}
        return AttackConfig.model_validate({"name": name} | shared | changes)

    def under(self, attack: AttackConfig) -> Outcome:
        """Attack the images that are classified correctly; done once for each attack."""
        if attack.label not in self._kept:
            adversarial = self.examples(self.predictor, attack)
            self._kept[attack.label] = self.judge(attack, adversarial)
            self._on_outcome(self._kept[attack.label])
        return self._kept[attack.label]

    def examples(self, predictor: DifferentiablePredictor, attack: AttackConfig) -> Images:
        """Twins (n, H, W, C) that an attack on a predictor finds; of clean errors, the images themselves."""
        out, call = self.x.copy(), bind_attack(attack)
        met = np.flatnonzero(self.clean)
        for s in spans(len(met), self._batch):
            i = met[s]
            out[i] = call(predictor, self.x[i], self.y[i], seed=attack.seed, indices=i)
        return out

    def judge(self, attack: AttackConfig, adversarial: Images) -> Outcome:
        """How the examined predictor does on images that were made from its own, cut to the pixel range."""
        flat = np.asarray(adversarial, np.float64).reshape(len(self.x), -1)
        seen = np.clip(adversarial, LOW, HIGH)
        return Outcome(
            attack,
            self.clean & (is_right(self.predictor, seen, self.y)[:, 0] > 0),
            perturbation_size(adversarial, self.x, attack.norm),
            np.maximum(flat.max(axis=1) - HIGH, LOW - flat.min(axis=1)),
        )


RATE = 0.01
"""Part of all images that an attack may break alone, although the other should not be weaker: both are local."""
LEVEL = 0.01
"""Level of the test that it is no more: the probability at most with which a check fails at exactly that rate."""


@dataclass(frozen=True)
class Check:
    """The verdict of one check."""

    name: str
    passed: bool
    value: str
    criterion: str
    details: dict[str, Any] = field(default_factory=dict)


def allowed(images: int) -> int:
    """The largest number of images that an attack may break alone.

    Outcomes are paired by image, and the number is tested against RATE by the exact one-sided binomial test at LEVEL.
    """
    return int(binom.isf(LEVEL, images, RATE))


def criterion(images: int) -> str:
    """The same in words, to follow what an attack breaks alone."""
    return (
        f"at most {allowed(images)} of {images} images (no more than {100 * RATE:g}% of all, by the exact one-sided "
        f"binomial test of outcomes paired by image, at level {100 * LEVEL:g}%)"
    )
