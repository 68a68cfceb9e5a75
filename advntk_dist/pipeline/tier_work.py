"""What a tier asks of a run: our own attacks wherever batches are judged, or AutoAttack's code in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import zarr

from advntk_dist.attacks.autoattack import STANDARD, check_outputs, package_versions, square_flag
from advntk_dist.attacks.pgd_reference import NOTE
from advntk_dist.evaluation.cost import Priced
from advntk_dist.evaluation.evaluate import NamedAttack, SequenceResult
from advntk_dist.evaluation.evaluator import Evaluator, InProcess
from advntk_dist.evaluation.tiers import TIERS, StandardParts, named, part_price, short_name, tier_attacks
from advntk_dist.pipeline.problem import Part
from advntk_dist.pipeline.scoring import CommittedCoefficients
from advntk_dist.pipeline.stages import Stages

AUTOATTACK = "autoattack"
TIER_NAMES = (*TIERS, AUTOATTACK)
"""Tiers of ``advntk evaluate``."""


@dataclass(frozen=True)
class TierAttack:
    """An attack of a tier: its name there, what is stored of it, and what it costs."""

    name: str
    described: dict[str, Any]
    priced: Priced


class TierWork:
    """A tier of our own attacks on the test images of a run.

    Parameters
    ----------
    stages
        The run.
    test
        Its first so many test images.
    tier
        A key of TIERS.

    Attributes
    ----------
    attacks
        In order.
    workers
        Batches that are judged at a time.
    note
        What a reader of the table must know, or None.
    unpriced
        What the prediction of its cost leaves out, or None.
    """

    attacks: tuple[TierAttack, ...]
    note: str | None = None
    unpriced: str | None = None

    def __init__(self, stages: Stages, test: Part, tier: str) -> None:
        self.stages, self.test = stages, test
        self._configs = tier_attacks(tier, stages.config.attack, stages.problem.dataset.n_classes)
        self.attacks = tuple(TierAttack(short_name(a), a.described(), Priced.of(a)) for a in self._configs)
        if any(a.name == "pgd-reference" for a in self._configs):
            self.note = NOTE

    @property
    def workers(self) -> int:
        """See above."""
        return self.stages.workers

    def evaluator(self, coefficients: CommittedCoefficients) -> Evaluator:
        """Where batches of a method are judged."""
        return self.stages.evaluator(coefficients, self.test)

    def against(self, group: zarr.Group, method: str) -> tuple[NamedAttack, ...]:  # noqa: ARG002
        """The attacks against a method, whose outcomes go to ``group``."""
        return named(self._configs)

    def remarks(self, group: zarr.Group, method: str, sequence: SequenceResult) -> dict[str, Any]:  # noqa: ARG002
        """What the JSON says of a method besides its outcomes."""
        return {}


class AutoAttackWork(TierWork):
    """The standard version of AutoAttack, its authors' code; parameters as for :class:`TierWork`.

    Raises
    ------
    RequestError
        If there are too few classes for it.
    """

    workers = 1
    unpriced = "what PyTorch does between the predictor's passes"

    def __init__(self, stages: Stages, test: Part) -> None:
        check_outputs(stages.problem.dataset.n_classes)
        self.stages, self.test, self._attack = stages, test, stages.config.attack
        shared = {"radius": self._attack.radius, "norm": self._attack.norm, "seed": self._attack.seed}
        self.attacks = tuple(
            TierAttack(
                part,
                {"name": AUTOATTACK, "version": "standard", "part": part} | shared,
                part_price(part, self._attack.norm),
            )
            for part in STANDARD
        )

    def evaluator(self, coefficients: CommittedCoefficients) -> Evaluator:
        """This process: what the code prints is part of the result."""
        return InProcess(lambda: self.stages.predictor(coefficients()), self.test.x, self.test.y)

    def against(self, group: zarr.Group, method: str) -> tuple[NamedAttack, ...]:
        """Its parts; what they say is kept in the group before the batch is, so that no restart loses it."""

        def on_flag(part: str, flag: str) -> None:
            flags = self._flags(group, method)
            if flag not in flags.get(part, []):
                group.attrs[_key(method)] = flags | {part: [*flags.get(part, []), flag]}

        a = self._attack
        return StandardParts(self.test.x, radius=a.radius, norm=a.norm, seed=a.seed, on_flag=on_flag).named()

    def remarks(self, group: zarr.Group, method: str, sequence: SequenceResult) -> dict[str, Any]:
        """Its flags, each once, by part, and the versions of its packages."""
        flags = self._flags(group, method)
        told: list[str] = []
        left = {"clean": sequence.result.clean.value} | {a.name: a.robust.value for a in sequence.attacks}
        square_flag(left, told.append)
        if told:
            flags["square"] = [*flags.get("square", []), *told]
        return {"flags": flags, "packages": package_versions()}

    @staticmethod
    def _flags(group: zarr.Group, method: str) -> dict[str, Any]:
        attributes: dict[str, Any] = group.attrs.asdict()
        return dict(attributes.get(_key(method), {}))


def _key(method: str) -> str:
    return f"{method}_flags"
