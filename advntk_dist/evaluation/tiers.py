"""Standards of evaluation by name, each a sequence of attacks, and one call that holds a predictor to one of them.

After AutoAttack (Croce & Hein 2020): parameter-free attacks with several losses and one black-box attack, on the
images that are left; FAB is left out, which seldom fells an image that the targeted APGD does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.autoattack import STANDARD, autoattack, output_scale
from advntk_dist.attacks.base import DifferentiablePredictor, Images, Norm
from advntk_dist.attacks.registry import bind_attack
from advntk_dist.config import AttackConfig
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.evaluation.cost import Passes, Priced
from advntk_dist.evaluation.evaluate import AttackOutcome, NamedAttack, SequenceResult, evaluate_sequence
from advntk_dist.evaluation.evaluator import Evaluator, InProcess

TierName = Literal["fast", "standard", "full"]


@dataclass(frozen=True)
class Tier:
    """A standard of evaluation.

    Attributes
    ----------
    says
        What it is, in one line.
    steps
        Steps of APGD; 0 for no attacks beyond the run's own.
    targets
        Classes that targeted APGD moves towards.
    queries
        Predictions that Square may ask for.
    restarts
        Starts of the untargeted APGD, for each loss.
    """

    says: str
    steps: int = 0
    targets: int = 0
    queries: int = 0
    restarts: int = 1


TIERS: dict[str, Tier] = {
    "fast": Tier("the run's attack, as training and selection see it"),
    "standard": Tier("APGD with 2 losses and 3 targets, Square with 1,000 queries", 100, 3, 1000),
    "full": Tier("APGD with 2 losses from 5 starts and 9 targets, Square with 5,000 queries", 100, 9, 5000, 5),
}
"""The tiers. ``standard`` has three targets: each costs as much as a whole APGD, and the likeliest classes lead."""


def tier_attacks(tier: str, attack: AttackConfig, classes: int) -> tuple[AttackConfig, ...]:
    """The attacks of a tier, in order: cheap ones first, so that few images meet the dear ones.

    Parameters
    ----------
    tier
        A key of TIERS.
    attack
        The run's attack: its radius, norm and seed are those of all attacks; ``fast`` is this attack alone. Attack
        number i draws with seed + i, so that starts differ.
    classes
        Outputs of the predictor: with 3, targets have no difference of logits ratio, so their margin is taken; with
        2, a targeted attack would be the untargeted one, and is left out. In l1 there is no Square.

    Raises
    ------
    KeyError
        If there is no such tier.
    """
    t = TIERS[tier]
    if not t.steps:
        return (attack,)
    shared = {"radius": attack.radius, "norm": attack.norm}
    wanted: list[dict[str, Any]] = [
        {"name": "fgsm"},
        {"name": "pgd", "steps": 10},
        *auto_pgd(classes, t.steps, targets=t.targets, restarts=t.restarts),
    ]
    if attack.norm != "l1":
        wanted.append({"name": "square", "queries": t.queries})
    made = (AttackConfig.model_validate(w | shared | {"seed": attack.seed + i}) for i, w in enumerate(wanted))
    return tuple(made)


def auto_pgd(classes: int, steps: int, *, targets: int, restarts: int = 1) -> list[dict[str, Any]]:
    """Keys of [attack] for Auto-PGD with each loss that the number of classes allows; targeted ones start once."""
    found: list[dict[str, Any]] = [
        {"name": "apgd", "loss": loss, "steps": steps, "restarts": restarts}
        for loss in ("cross-entropy", "dlr" if classes > 2 else "margin")
    ]
    if classes > 2:
        loss = "dlr-targeted" if classes > 3 else "margin-targeted"
        found.append({"name": "apgd-targeted", "loss": loss, "steps": steps, "targets": min(targets, classes - 1)})
    return found


def short_name(attack: AttackConfig) -> str:
    """What an attack is called within a tier: its name, and for APGD its loss."""
    return f"apgd-{attack.loss}" if attack.name == "apgd" else attack.name


def evaluate_tier(
    predictor: DifferentiablePredictor,
    x: ArrayLike,
    y: ArrayLike,
    tier: str,
    attack: AttackConfig,
    *,
    batch: int | None = None,
    group: zarr.Group | None = None,
    name: str = "predictor",
    evaluator: Evaluator | None = None,
    on_batch: Callable[[str, int, bool], None] = lambda attack, images, fresh: None,
    on_attack: Callable[[AttackOutcome], None] = lambda outcome: None,
) -> SequenceResult:
    """Hold one predictor to a tier.

    Several predictors on the same training images share them where each is made by
    :meth:`advntk_dist.KernelPredictor.with_coefficients`; nothing is kept here between calls.

    Parameters
    ----------
    predictor
        What is attacked.
    x, y
        Images (m, H, W, C), uint8 or floats in [-0.5, 0.5], and labels (m,).
    tier
        A key of TIERS.
    attack
        Gives radius, norm and seed, see :func:`tier_attacks`.
    batch
        Images at once; by default the predictor's own batch, or 128.
    group, name
        Where outcomes are committed, as :func:`advntk_dist.evaluation.evaluate.evaluate_sequence` takes them; by
        default in memory alone. The group must be this tier's, attack's and these images' own.
    evaluator
        Where batches are judged; by default in this process.
    on_batch, on_attack
        As :func:`advntk_dist.evaluation.evaluate.evaluate_sequence` calls them.

    Raises
    ------
    KeyError
        If there is no such tier.
    EvaluationError
        If the evaluator cannot judge a batch.
    """
    images, labels = to_unit_range(np.asarray(x)), np.asarray(y, dtype=np.int64)
    classes = classes_of(predictor, images)
    return evaluate_sequence(
        evaluator or InProcess(lambda: predictor, images, labels),
        len(images),
        named(tier_attacks(tier, attack, classes)),
        norm=attack.norm,
        group=group if group is not None else zarr.create_group(zarr.storage.MemoryStore(), zarr_format=3),
        name=name,
        batch=batch or int(getattr(predictor, "batch", 128)),
        on_batch=on_batch,
        on_attack=on_attack,
    )


def named(attacks: tuple[AttackConfig, ...]) -> tuple[NamedAttack, ...]:
    """Configured attacks, ready for a sequence."""
    return tuple(NamedAttack(short_name(a), bind_attack(a), a.seed) for a in attacks)


def classes_of(predictor: DifferentiablePredictor, x: Images) -> int:
    """Outputs of a predictor, asked on one image where it does not say."""
    known = getattr(predictor, "outputs", None)
    return int(known) if known is not None else predictor.predict(x[:1]).shape[1]


JUDGED = 2
"""Value passes that an image takes besides: its result is judged in the bridge, and for the table."""
_TARGETED = {"fab-t": Passes(1837, 900), "square": Passes(5012, 0)}
PASSES: dict[Norm, dict[str, Passes]] = {
    "linf": {"apgd-ce": Passes(111, 101), "apgd-t": Passes(928, 909), **_TARGETED},
    "l2": {"apgd-ce": Passes(111, 101), "apgd-t": Passes(928, 909), **_TARGETED},
    "l1": {"apgd-ce": Passes(525, 515), "apgd-t": Passes(530, 515), **_TARGETED},
}
"""What each part asks for an image that withstands it, its checks of the predictor included; counted."""


def part_price(part: str, norm: Norm) -> Priced:
    """The cost of a part: the first meets every image that is classified correctly."""
    asked = PASSES[norm][part]
    return Priced(Passes(asked.queries + JUDGED, asked.steps), part == STANDARD[0])


class StandardParts:
    """The parts against one predictor.

    Parameters
    ----------
    x
        All images that it is judged on (n, H, W, C), floats: of all of them comes the scale of its outputs.
    radius, norm, seed
        Of every part.
    on_flag
        Called with the part and with what it says against its result.
    """

    def __init__(self, x: Images, *, radius: float, norm: Norm, seed: int, on_flag: Callable[[str, str], None]) -> None:
        self._x, self._radius, self._norm, self._seed, self._on_flag = x, radius, norm, seed, on_flag
        self._scale: float | None = None

    def named(self) -> tuple[NamedAttack, ...]:
        """The parts as :func:`~advntk_dist.evaluation.evaluate.evaluate_sequence` takes them."""
        return tuple(NamedAttack(part, partial(self._attack, part), self._seed) for part in STANDARD)

    def _attack(
        self,
        part: str,
        predictor: DifferentiablePredictor,
        x: ArrayLike,
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
