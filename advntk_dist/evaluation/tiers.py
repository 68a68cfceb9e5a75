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


def standard_parts(
    x: Images, *, radius: float, norm: Norm, seed: int, on_flag: Callable[[str, str], None]
) -> tuple[NamedAttack, ...]:
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
    scale: float | None = None

    def attack(
        part: str,
        predictor: DifferentiablePredictor,
        images: Images,
        y: NDArray[np.int64],
        *,
        seed: int,
        indices: Any,  # noqa: ARG001 - of the interface; its random numbers go by batch
    ) -> Images:
        nonlocal scale
        if scale is None:
            scale = output_scale(predictor, x)
        return autoattack(
            predictor,
            images,
            y,
            radius=radius,
            norm=norm,
            seed=seed,
            batch=len(y),
            attacks=[part],
            scale=scale,
            on_flag=partial(on_flag, part),
        )

    return tuple(NamedAttack(part, partial(attack, part), seed) for part in registry.AUTOATTACK.parts)
