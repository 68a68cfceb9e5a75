"""The methods of a run held to a tier of attacks: at the end of a run, and by `advntk evaluate --tier`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np
import zarr

from advntk_dist.attacks.autoattack import check_outputs, package_versions, packages, square_flag
from advntk_dist.attacks.registry import AUTOATTACK, TIER_NAMES
from advntk_dist.environment import environment
from advntk_dist.errors import RequestError, StoreDamagedError
from advntk_dist.evaluation.committed import CommittedSeconds
from advntk_dist.evaluation.cost import WORTH, BatchSeconds, Priced, Timed, predict_cost
from advntk_dist.evaluation.evaluate import AttackOutcome, NamedAttack, SequenceResult, evaluate_sequence
from advntk_dist.evaluation.evaluator import Batch, Evaluator, InProcess
from advntk_dist.evaluation.statistics import MethodResult, paired_differences
from advntk_dist.evaluation.tiers import named, part_price, short_name, standard_parts, tier_attacks
from advntk_dist.pipeline.coefficients import CommittedCoefficients
from advntk_dist.pipeline.context import Part, RunContext
from advntk_dist.pipeline.directory import READ_ONLY
from advntk_dist.pipeline.evaluate import first_images, open_finished
from advntk_dist.pipeline.finished import outcome_names, refresh_results, tier_label
from advntk_dist.pipeline.stages import OpenRun, sources
from advntk_dist.pipeline.worst_case import foreign_outcomes_named
from advntk_dist.progress import Display
from advntk_dist.results import schema, sealed
from advntk_dist.storage import Records, guarded_group
from advntk_dist.storage.paths import Location
from advntk_dist.text import duration

SAMPLE = 200
"""Test images of the tier whose cost is said where none was asked for."""


def evaluate_run_tier(
    out: str | Location,
    tier: str,
    *,
    images: int | None = None,
    methods: Sequence[str] | None = None,
    address: str | None = None,
    workers: int | None = None,
    display: Display | None = None,
) -> tuple[Location, dict[str, Any]]:
    """Hold the methods of a finished run to a tier, on the first ``images`` test images (by default all).

    Outcomes are committed batch by batch for each attack, and a second call does what is missing. What it will cost
    is shown before it starts, from the measured time of one batch.

    Returns
    -------
    path, results
        The JSON file below ``evaluation`` in the run directory, and what it holds. The seconds of a method add up
        over all starts; what was predicted is kept beside them.

    Raises
    ------
    RequestError
        If the run is not finished, there is no such tier, method or number of images, or the tier cannot be had here.
    """
    if tier not in TIER_NAMES:
        raise RequestError(f"--tier: no tier {tier!r}; there are {', '.join(TIER_NAMES)}")
    if tier == AUTOATTACK.name:
        packages()  # what is missing is said before anything is read
        if workers is not None or address is not None:
            raise RequestError("--tier autoattack works in this process; leave out --workers and --address")
    run, before, chosen = open_finished(out, address=address, workers=workers, display=display)
    context, folder = run.context, run.context.folder
    test, known = first_images(run, images), outcome_names(context.config, chosen)
    asked = tuple(methods or known)
    if unknown := set(asked) - set(known):
        raise RequestError(f"--method: no method {', '.join(unknown)}; there are {', '.join(known)}")
    job = TierJob(run, tier, test, chosen, before["methods"])
    if folder.is_read_only and job.path.exists() and set(asked) <= job.results()["methods"].keys():
        return job.path, job.results()
    with folder.claimed(context.config), context:
        job.work(asked)
        refresh_results(folder, context.config, context.display.say)
    return job.path, job.results()


def end_with_tier(run: OpenRun, chosen: int, own: Mapping[str, MethodResult]) -> dict[str, Any]:
    """Hold every method to the tier that ends a run, where it is asked for, or is worth its predicted cost.

    Parameters
    ----------
    run
        The run, all of whose other stages are done.
    chosen
        Index of the time of early stopping.
    own
        The methods under the run's own attack.

    Returns
    -------
    dict
        What results.json says of it.
    """
    context = run.context
    asked, none = context.config.evaluation.tier, context.config.final_tier is None
    tier, images, table = _decision(run)
    job = TierJob(run, tier, context.problem.test.first(images), chosen, {k: r.as_dict() for k, r in own.items()})
    known = table.read(0)
    if known is None:
        predicted, spent = job.predicted_seconds(say=not none), sum(context.events.seconds().values())
    else:
        predicted, spent = float(known[0, 1]), float(known[0, 2])
    worth = not none and (asked != "auto" or job.begun or predicted <= WORTH * spent)
    if known is None or bool(known[0, 0]) != worth:
        table.write(0, np.array([[float(worth), predicted, spent]]))
    if asked == "auto" and not worth:
        context.display.say(
            f"not held to tier {tier}: on {images} test images it would take about {duration(predicted)}, more than "
            f"half of the run's {duration(spent)}"
        )
    if worth:
        job.work()
    return decided_tier(run)


def decided_tier(run: OpenRun) -> dict[str, Any]:
    """What results.json says of the tier that ends a run, as it was decided."""
    asked = run.context.config.evaluation.tier
    tier, images, table = _decision(run)
    told: dict[str, Any] = {"asked": asked, "name": tier, "images": images}
    known = table.read(0)
    if known is None:
        return told | {"worth": asked not in ("none", "auto")}
    times = {"predicted_seconds": round(float(known[0, 1]), 3), "run_seconds": round(float(known[0, 2]), 3)}
    return told | {"worth": bool(known[0, 0])} | times


def _decision(run: OpenRun) -> tuple[str, int, Records]:
    """The tier that was asked for, or whose cost is said; its images; whether it was worth it, and seconds, (1, 3).

    The seconds are those predicted of the tier, and those of the run before it.
    """
    config = run.context.config
    tier, images = config.final_tier or ("standard", min(SAMPLE, config.data.n_test))
    name = f"{config.evaluation.tier}_{tier}_{images}_decided"
    return tier, images, Records(run.coefficients.group, name, 1, (3,))


class TierJob:
    """The methods of a run held to a tier, on its first test images; outcomes are committed batch by batch.

    Parameters
    ----------
    run
        The run; its directory must be claimed before anything is worked on.
    tier
        One of TIER_NAMES.
    test
        Its first so many test images.
    chosen
        Index of the time of early stopping.
    rates
        Clean and robust accuracy of each method under the run's own attack, which tell what to expect.

    Attributes
    ----------
    path
        The JSON file of the tier.
    """

    def __init__(
        self, run: OpenRun, tier: str, test: Part, chosen: int, rates: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._run, self._tier, self._test, self._chosen, self._rates = run, tier, test, chosen, rates
        self._work = AutoAttackWork(run, test) if tier == AUTOATTACK.name else TierWork(run, test, tier)
        folder, label = run.context.folder, tier_label(run.context.config, tier, len(test.y))
        self._place, self.path = folder.evaluation / label, folder.root / "evaluation" / f"{label}.json"
        self._predicted: dict[str, dict[str, Any]] = {}

    @property
    def begun(self) -> bool:
        """Whether an earlier start has begun it."""
        return (self._place / "zarr.json").exists()

    def predicted_seconds(self, *, say: bool = True) -> float:
        """What all methods are expected to take together; ``say``: show how it comes about."""
        self._predicted = self._predict(sources(self._run, self._chosen), say=say)
        return sum(float(row["expected"]["seconds"]) for row in self._predicted.values())

    def work(self, methods: Sequence[str] | None = None) -> None:
        """Do what is missing for these methods, by default all, and write the JSON file."""
        context, images, attacks = self._run.context, len(self._test.y), self._work.attacks
        described = [a.described for a in attacks]
        coefficients = sources(self._run, self._chosen)
        asked = tuple(methods or coefficients)
        with foreign_outcomes_named(self._place), context.events.stage("evaluate"):
            identity = {"attacks": described, "called": [a.name for a in attacks], "images": images}
            group = guarded_group(self._place, context.identity | identity)
            earlier = _earlier(self.path, context).get("methods", {})
            new = {m: coefficients[m] for m in asked if m not in earlier}
            predicted = self._predicted or self._predict(new)
            rows, found = {}, {}
            for method in (m for m in coefficients if m in asked or m in earlier):
                clock = CommittedSeconds(group, f"{method}_seconds")
                sequence = self._attack(group, clock, method, coefficients[method])
                found[method] = sequence.result
                if method in earlier:
                    rows[method] = earlier[method] | sequence.as_dict()
                else:
                    told = {"seconds": round(clock.total, 3), "predicted": predicted[method]}
                    rows[method] = sequence.as_dict() | told | self._work.remarks(group, method, sequence)
            attack = context.config.attack
            results = context.description() | {
                "tier": self._tier,
                "images": images,
                "attack": {"radius": attack.radius, "norm": attack.norm, "seed": attack.seed},
                "attacks": [{"called": a.name} | a.described for a in attacks],
                "methods": rows,
                "paired": paired_differences(found),
                "environment": environment(),
            }
            if self._work.note is not None:
                results["note"] = self._work.note
            sealed.write(self.path, schema.TierResults, results)

    def results(self) -> dict[str, Any]:
        """What the JSON file holds."""
        results = sealed.read(self.path, schema.TierResults, READ_ONLY)
        assert results is not None
        return sealed.plain(results)

    def _attack(
        self, group: zarr.Group, clock: CommittedSeconds, method: str, coefficients: CommittedCoefficients
    ) -> SequenceResult:
        context, images, work = self._run.context, len(self._test.y), self._work
        weights = {"clean": 1} | {a.name: a.priced.passes.queries + a.priced.passes.steps for a in work.attacks}
        with context.display.stage(method, images * sum(weights.values()), "passes") as advance:

            def on_batch(attack: str, images: int, fresh: bool) -> None:
                advance(images * weights[attack], fresh)
                if fresh:
                    clock.commit()
                    context.events.write("batch", name=f"{method}_{attack}", images=images)

            def on_attack(outcome: AttackOutcome) -> None:
                context.display.say(
                    f"{method}: {outcome.name} breaks {outcome.broken} of {outcome.attacked}, "
                    f"{100 * outcome.robust.value:.2f}% robust"
                )

            return evaluate_sequence(
                work.evaluator(coefficients),
                images,
                work.against(group, method),
                norm=context.config.attack.norm,
                group=group,
                name=method,
                batch=context.config.evaluation.batch,
                on_batch=on_batch,
                on_attack=on_attack,
                of=coefficients.seal,
            )

    def _predict(self, methods: Mapping[str, CommittedCoefficients], *, say: bool = True) -> dict[str, dict[str, Any]]:
        """Show what methods will cost together, and return it for each: at most, and as the run lets expect."""
        if not methods:
            return {}
        context, images, work = self._run.context, len(self._test.y), self._work
        batch, workers = min(context.config.evaluation.batch, images), work.workers()
        coefficients = next(iter(methods.values()))
        ((_, seconds),) = work.evaluator(coefficients).map([Batch(np.arange(batch), Timed())])
        measured = BatchSeconds(batch, float(seconds[0, 0]), float(seconds[0, 1]))
        cost = partial(predict_cost, [a.priced for a in work.attacks], images, measured, workers=workers)
        bound, rates = cost(), self._rates
        expected = {m: cost(clean=rates[m]["clean"], robust=rates[m]["robust"]) for m in methods}
        shared = {"batch": asdict(measured), "workers": workers, "bound": bound.as_dict()}
        lines = [
            f"a batch of {batch}: {1e3 * measured.query_seconds:.1f} ms for values, "
            f"{1e3 * measured.step_seconds:.1f} ms with gradients; {workers} at a time",
            f"at most (no attack succeeds): {reduce(add, [bound] * len(methods))}",
            f"expected (accuracies of the run under its own attack): {reduce(add, expected.values())}",
        ]
        if work.unpriced is not None:
            lines.append(f"not predicted: {work.unpriced}")
            shared["without"] = work.unpriced
        for line in lines if say else ():
            context.display.say(line)
        return {method: shared | {"expected": found.as_dict()} for method, found in expected.items()}


def _earlier(path: Location, context: RunContext) -> dict[str, Any]:
    """What the file has from before; nothing where it is damaged, as it is written again from the outcomes."""
    try:
        found = sealed.read(path, schema.TierResults, "it is written again")
        if found is None:
            return {}
        sealed.require_owner(path, found, context.identity, "it is written again")
        return sealed.plain(found)
    except StoreDamagedError as error:
        context.display.say(str(error))
        return {}


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
    run
        The run.
    test
        Its first so many test images.
    tier
        A key of :data:`advntk_dist.attacks.registry.TIERS`.

    Attributes
    ----------
    attacks
        In order.
    note
        What a reader of the table must know, or None.
    unpriced
        What the prediction of its cost leaves out, or None.
    """

    attacks: tuple[TierAttack, ...]
    note: str | None = None
    unpriced: str | None = None

    def __init__(self, run: OpenRun, test: Part, tier: str) -> None:
        self.run, self.test = run, test
        self._configs = tier_attacks(tier, run.context.config.attack, run.context.problem.dataset.n_classes)
        self.attacks = tuple(TierAttack(short_name(a), a.described(), Priced.of(a)) for a in self._configs)
        self.note = next((a.spec.note for a in self._configs if a.spec.note is not None), None)

    def workers(self) -> int:
        """Batches that are judged at a time."""
        return self.run.outcomes.workers.count()

    def evaluator(self, coefficients: CommittedCoefficients) -> Evaluator:
        """Where batches of a method are judged."""
        return self.run.outcomes.workers.evaluator(coefficients, self.test)

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

    unpriced = "what PyTorch does between the predictor's passes"

    def __init__(self, run: OpenRun, test: Part) -> None:
        check_outputs(run.context.problem.dataset.n_classes)
        self.run, self.test, self._attack = run, test, run.context.config.attack
        shared = {"radius": self._attack.radius, "norm": self._attack.norm, "seed": self._attack.seed}
        self.attacks = tuple(
            TierAttack(
                part,
                {"name": AUTOATTACK.name, "version": AUTOATTACK.version, "part": part} | shared,
                part_price(part, self._attack.norm),
            )
            for part in AUTOATTACK.parts
        )

    def workers(self) -> int:
        """One: batches are judged in this process."""
        return 1

    def evaluator(self, coefficients: CommittedCoefficients) -> Evaluator:
        """This process: what the code prints is part of the result."""
        return InProcess(lambda: self.run.outcomes.predictor(coefficients()), self.test.x, self.test.y)

    def against(self, group: zarr.Group, method: str) -> tuple[NamedAttack, ...]:
        """Its parts; what they say is kept in the group before the batch is, so that no restart loses it."""

        def on_flag(part: str, flag: str) -> None:
            flags = _flags(group, method)
            if flag not in flags.get(part, []):
                group.attrs[f"{method}_flags"] = flags | {part: [*flags.get(part, []), flag]}

        a = self._attack
        return standard_parts(self.test.x, radius=a.radius, norm=a.norm, seed=a.seed, on_flag=on_flag)

    def remarks(self, group: zarr.Group, method: str, sequence: SequenceResult) -> dict[str, Any]:
        """Its flags, each once, by part, and the versions of its packages."""
        flags = _flags(group, method)
        told: list[str] = []
        left = {"clean": sequence.result.clean.value} | {a.name: a.robust.value for a in sequence.attacks}
        square_flag(left, told.append)
        if told:
            flags[AUTOATTACK.black_box] = [*flags.get(AUTOATTACK.black_box, []), *told]
        return {"flags": flags, "packages": package_versions()}


def _flags(group: zarr.Group, method: str) -> dict[str, Any]:
    """What the parts have said against their results of a method."""
    attributes: dict[str, Any] = group.attrs.asdict()
    return dict(attributes.get(f"{method}_flags", {}))
