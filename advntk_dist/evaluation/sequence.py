"""Several attacks, one after the other, on the images that are left; the worst case of all of them for each image.

As in AutoAttack (Croce & Hein 2020): an image that an attack fells is a failure and is not attacked again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.attacks.base import BoundAttack, Norm
from advntk_dist.evaluation.accuracy import Accuracy, MethodResult
from advntk_dist.evaluation.committed import CommittedRows, counted
from advntk_dist.evaluation.evaluator import Evaluator, Withstands, is_right

Outcomes = NDArray[np.float64]


@dataclass(frozen=True)
class NamedAttack:
    """An attack with its place in a sequence: a name that occurs once, and the seed of its random draws."""

    name: str
    attack: BoundAttack
    seed: int


@dataclass(frozen=True)
class AttackOutcome:
    """What one attack of a sequence did: images it met, images it felled, and the accuracy that is left after it."""

    name: str
    attacked: int
    fallen: int
    robust: Accuracy
    max_perturbation: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "attacked": self.attacked,
            "fallen": self.fallen,
            "robust": self.robust.value,
            "robust_interval": [self.robust.low, self.robust.high],
            "max_perturbation": self.max_perturbation,
        }


@dataclass(frozen=True, eq=False)
class SequenceResult:
    """How a predictor does under a sequence of attacks.

    Attributes
    ----------
    result
        Clean accuracy, accuracy under the worst of the attacks, largest perturbation of all attacks.
    attacks
        One outcome an attack, in order.
    """

    result: MethodResult
    attacks: tuple[AttackOutcome, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as the JSON of a tier has them for each method."""
        return self.result.as_dict() | {"attacks": [a.as_dict() for a in self.attacks]}


def evaluate_sequence(
    evaluator: Evaluator,
    n: int,
    attacks: Sequence[NamedAttack],
    *,
    norm: Norm,
    group: zarr.Group,
    name: str,
    batch: int,
    on_batch: Callable[[str, int, bool], None] = lambda attack, images, fresh: None,
    on_attack: Callable[[AttackOutcome], None] = lambda outcome: None,
    of: int = 0,
) -> SequenceResult:
    """Predict n images, then let each attack meet those that all before it have left.

    Outcomes are committed a batch at a time for each attack; a second call does only what is missing.

    Parameters
    ----------
    evaluator
        Where batches are judged.
    n
        Images.
    attacks
        The sequence.
    norm
        Norm of the perturbations.
    group, name
        Zarr group of the outcomes, and the name that this predictor has in it: arrays ``{name}_clean`` (n, 1), and
        for each attack ``{name}_{attack}`` (n, 2) as :class:`~advntk_dist.evaluation.evaluator.Withstands` returns
        them, rows of zeros for images that have fallen before.
    batch
        Images judged and committed at once.
    on_batch
        Called after each commit with "clean" or the attack's name, the images, and whether they were done now.
    on_attack
        Called after each attack.
    of
        Seal of the predictor's coefficients where these are committed: outcomes of any others are not met again.

    Raises
    ------
    ValueError
        If two attacks share a name.
    StoreError
        If a batch cannot be committed.
    EvaluationError
        If a batch cannot be judged.
    """
    if len({a.name for a in attacks}) != len(attacks):
        raise ValueError(f"attacks of a sequence need different names, got {[a.name for a in attacks]}")

    def committed(stage: str, columns: int) -> CommittedRows:
        told = counted(lambda images, fresh: on_batch(stage, images, fresh))
        return CommittedRows(group, f"{name}_{stage}", n, columns, batch, told, of)

    rows = committed("clean", 1)
    for work, found in evaluator.map(rows.batches(rows.missing, is_right)):
        rows.table[work.indices] = found
        rows.commit()
    clean = rows.table[:, 0] > 0
    alive, outcomes = clean, []
    for attack in attacks:
        rows = committed(attack.name, 2)
        rows.table[rows.missing[~alive[rows.missing]]] = 0.0
        rows.commit()
        waiting = rows.missing[alive[rows.missing]]
        for work, found in evaluator.map(rows.batches(waiting, Withstands(attack.attack, norm, attack.seed))):
            rows.table[work.indices] = found
            rows.commit()
        left = alive & (rows.table[:, 0] > 0)
        largest = float(rows.table[:, 1].max())
        outcome = AttackOutcome(
            attack.name, int(alive.sum()), int(alive.sum() - left.sum()), Accuracy.of(left), largest
        )
        on_attack(outcome)
        outcomes.append(outcome)
        alive = left
    worst = max((o.max_perturbation for o in outcomes), default=0.0)
    return SequenceResult(MethodResult.of(clean, alive, worst), tuple(outcomes))
