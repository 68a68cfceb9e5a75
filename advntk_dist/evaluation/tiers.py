"""The attacks of a tier, ready for a sequence: our own, and the parts of AutoAttack's own code.

After AutoAttack (Croce & Hein 2020): parameter-free attacks with several losses and one black-box attack, on the
images that are still robust; FAB is left out, which seldom breaks an image that the targeted APGD does not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks import registry
from advntk_dist.attacks.autoattack import autoattack, output_scale
from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import Images
from advntk_dist.config import AttackConfig
from advntk_dist.evaluation.cost import Priced
from advntk_dist.evaluation.evaluate import NamedAttack
from advntk_dist.spec import Norm


def tier_attacks(tier: str, attack: AttackConfig, classes: int) -> tuple[AttackConfig, ...]:
    """The attacks of a tier, in order: cheap ones first, so that few images meet the dear ones.

    Parameters
    ----------
    tier
        A key of :data:`advntk_dist.attacks.registry.TIERS`.
    attack
        The run's attack: its radius, norm and seed are those of all attacks; ``fast`` is this attack alone. Attack
        number i draws with seed + i, so that starts differ.
    classes
        Number of outputs of the predictor, which decides on losses and targets.

    Raises
    ------
    KeyError
        If there is no such tier.
    """
    wanted = registry.TIERS[tier]
    if not wanted.steps:
        return (attack,)
    shared = {"radius": attack.radius, "norm": attack.norm}
    return tuple(
        AttackConfig.model_validate(keys | shared | {"seed": attack.seed + i})
        for i, keys in enumerate(registry.tier(wanted, attack.norm, classes))
    )


def short_name(attack: AttackConfig) -> str:
    """What an attack is called within a tier: its name and, where the tier has it with several losses, its loss."""
    return attack.spec.name_in_tier(attack.loss)


def named(attacks: tuple[AttackConfig, ...]) -> tuple[NamedAttack, ...]:
    """Configured attacks, ready for a sequence."""
    return tuple(NamedAttack(short_name(a), registry.bind_attack(a), a.seed) for a in attacks)


def part_price(part: str, norm: Norm) -> Priced:
    """The cost of a part of AutoAttack: the first one meets every image that is classified correctly."""
    return Priced(registry.AUTOATTACK.part_cost(part, norm), registry.AUTOATTACK.meets_all(part))


class StandardParts:
    """The parts of AutoAttack against one predictor.

    Parameters
    ----------
    x
        All images that the predictor is judged on, (n, H, W, C), floats: the scale of its outputs is theirs.
    radius, norm, seed
        Radius, norm and seed of every part.
    on_flag
        Called with the name of a part and with what it says against its own result.
    """

    def __init__(self, x: Images, *, radius: float, norm: Norm, seed: int, on_flag: Callable[[str, str], None]) -> None:
        self._x, self._radius, self._norm, self._seed, self._on_flag = x, radius, norm, seed, on_flag
        self._scale: float | None = None

    def named(self) -> tuple[NamedAttack, ...]:
        """The parts as :func:`~advntk_dist.evaluation.evaluate.evaluate_sequence` takes them."""
        return tuple(NamedAttack(part, partial(self._attack, part), self._seed) for part in registry.AUTOATTACK.parts)

    def _attack(
        self,
        part: str,
        predictor: DifferentiablePredictor,
        x: Images,
        y: NDArray[np.int64],
        *,
        seed: int,
        indices: Any,  # noqa: ARG002 - of the interface; its random numbers go by batch
    ) -> Images:
        if self._scale is None:
            self._scale = output_scale(predictor, self._x)
        return autoattack(
            predictor,
            x,
            y,
            radius=self._radius,
            norm=self._norm,
            seed=seed,
            batch=len(y),
            attacks=[part],
            scale=self._scale,
            on_flag=partial(self._on_flag, part),
        )
