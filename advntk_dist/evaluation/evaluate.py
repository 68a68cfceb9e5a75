"""Accuracy of a predictor under one attack, or several in turn; each batch is committed and never computed twice.

A clean error counts as a robust one, so images that are misclassified to begin with are not attacked; those that are
not are collected over batches, so that every attack has a full batch of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.attacks.base import BoundAttack, DifferentiablePredictor
from advntk_dist.attacks.geometry import Images
from advntk_dist.evaluation.committed import CommittedRows, counted
from advntk_dist.evaluation.evaluator import Evaluator, InProcess, Withstands, is_right
from advntk_dist.evaluation.statistics import COLUMNS, Accuracy, MethodResult
from advntk_dist.spec import Norm


def evaluate(
    predictor: Callable[[], DifferentiablePredictor],
    x: Images,
    y: NDArray[np.int64],
    attack: BoundAttack,
    *,
    norm: Norm,
    seed: int,
    group: zarr.Group,
    name: str,
    batch: int,
    on_batch: Callable[[int, bool], None] = lambda images, fresh: None,
    evaluator: Evaluator | None = None,
    of: int = 0,
) -> MethodResult:
    """Attack every image that is classified correctly, once; a clean error counts as a robust one.

    Parameters
    ----------
    predictor
        Called once, and only if a batch is missing: makes what is attacked.
    x, y
        Images (m, H, W, C) and labels (m,).
    attack
        Called as attack(predictor, x, y, seed=..., indices=...).
    norm, seed
        Norm of the attack, to measure its perturbations; seed of its random starts.
    group, name
        Zarr group and array name of the committed outcomes, (m, 3) as COLUMNS says.
    batch, of
        As for :func:`evaluate_sequence`, as are the errors.
    on_batch
        Called after each batch with its number of images, and whether it was computed now or was there before.
    evaluator
        Where batches are judged; by default in this process, by ``predictor``, which is not called otherwise.
    """
    where = evaluator or InProcess(predictor, x, y)
    rows = CommittedRows(group, name, len(x), len(COLUMNS), batch, counted(on_batch), of)
    rows.fill(where, rows.missing, is_right, slice(0, 1))
    rows.table[rows.table[:, 0] == 0] = 0.0
    rows.commit()
    waiting = rows.missing[rows.table[rows.missing, 0] > 0]
    rows.fill(where, waiting, Withstands(attack, norm, seed), slice(1, None))
    table = rows.table
    return MethodResult.of(table[:, 0], table[:, 1], float(table[:, 2].max()))


@dataclass(frozen=True)
class NamedAttack:
    """An attack with its place in a sequence: a name that occurs once, and the seed of its random draws."""

    name: str
    attack: BoundAttack
    seed: int


@dataclass(frozen=True)
class AttackOutcome:
    """What one attack of a sequence did: images it met, images it broke, and the robust accuracy after it."""

    name: str
    attacked: int
    broken: int
    robust: Accuracy
    max_perturbation: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "attacked": self.attacked,
            "broken": self.broken,
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
    """Predict n images, then let each attack meet those that are robust under all before it.

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
        them, rows of zeros for images that are broken before it.
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
    rows.fill(evaluator, rows.missing, is_right)
    clean = rows.table[:, 0] > 0
    alive, outcomes = clean, []
    for attack in attacks:
        rows = committed(attack.name, 2)
        rows.table[rows.missing[~alive[rows.missing]]] = 0.0
        rows.commit()
        waiting = rows.missing[alive[rows.missing]]
        rows.fill(evaluator, waiting, Withstands(attack.attack, norm, attack.seed))
        robust = alive & (rows.table[:, 0] > 0)
        largest = float(rows.table[:, 1].max())
        outcome = AttackOutcome(
            attack.name, int(alive.sum()), int(alive.sum() - robust.sum()), Accuracy.of(robust), largest
        )
        on_attack(outcome)
        outcomes.append(outcome)
        alive = robust
    worst = max((o.max_perturbation for o in outcomes), default=0.0)
    return SequenceResult(MethodResult.of(clean, alive, worst), tuple(outcomes))
