"""The attack that a configuration describes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from advntk_dist.attacks import ATTACKS
from advntk_dist.attacks.base import BoundAttack
from advntk_dist.config import AttackConfig


def bind_attack(config: AttackConfig) -> BoundAttack:
    """The configured attack, with everything but predictor, images, seed and indices filled in."""
    options: dict[str, Any] = {"steps": config.steps}
    if config.name in ("pgd", "pgd-reference"):  # the other attacks choose their step sizes
        options["step_size"] = config.step_size if config.step_size is not None else config.radius / 5
    if config.name == "square":
        options["steps"] = config.queries
    if config.name == "apgd-targeted":
        options["targets"] = config.targets
    return partial(
        ATTACKS[config.name],
        radius=config.radius,
        norm=config.norm,
        loss=config.loss,
        restarts=config.restarts,
        **options,
    )


def step_seed(seed: int, step: int) -> int:
    """Seed of the random starts of the attack in one step of a training."""
    return int(np.random.SeedSequence([seed, 2, step]).generate_state(1, np.uint64)[0])
