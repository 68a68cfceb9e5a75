"""`advntk evaluate --tier`: the methods of a finished run held to a tier of attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import zarr

from advntk_dist.attacks.autoattack_package import packages
from advntk_dist.environment import environment
from advntk_dist.errors import RequestError, StoreDamagedError
from advntk_dist.evaluation.cost import Calibration, Cost, Timed, predict_cost
from advntk_dist.evaluation.evaluator import Batch
from advntk_dist.evaluation.paired import paired_differences
from advntk_dist.evaluation.seconds import CommittedSeconds
from advntk_dist.evaluation.sequence import AttackOutcome, SequenceResult, evaluate_sequence
from advntk_dist.pipeline.evaluate import DESCRIPTION, first_images, open_finished
from advntk_dist.pipeline.scoring import CommittedCoefficients
from advntk_dist.pipeline.stages import Stages
from advntk_dist.pipeline.tier_work import AUTOATTACK, TIER_NAMES, AutoAttackWork, TierWork
from advntk_dist.progress import Display
from advntk_dist.results import schema
from advntk_dist.storage import guarded_group
from advntk_dist.storage.location import Location


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
    if tier == AUTOATTACK:
        packages()  # what is missing is said before anything is read
        if workers is not None or address is not None:
            raise RequestError("--tier autoattack works in this process; leave out --workers and --address")
    folder, stages, before, chosen = open_finished(out, address=address, workers=workers, display=display)
    test, config = first_images(stages, images), stages.config
    sources = stages.sources(chosen)
    asked = tuple(methods or sources)
    if unknown := set(asked) - set(sources):
        raise RequestError(f"--method: no method {', '.join(unknown)}; there are {', '.join(sources)}")
    work = AutoAttackWork(stages, test) if tier == AUTOATTACK else TierWork(stages, test, tier)
    label = f"{tier}_{config.attack.norm}_r{config.attack.radius:.6g}_seed{config.attack.seed}_images{len(test.y)}"
    path = folder.root / "evaluation" / f"{label}.json"
    described = [a.described for a in work.attacks]
    with folder.claimed(config), stages, stages.events.stage("evaluate"):
        group = guarded_group(folder.evaluation / label, stages.identity | {"attacks": described})
        known = _earlier(path, stages)
        earlier = known.get("methods", {})
        predicted = _predict(work, {m: sources[m][1] for m in asked if m not in earlier}, before)
        rows, found = {}, {}
        for method in (m for m in sources if m in asked or m in earlier):
            clock = CommittedSeconds(group, f"{method}_seconds")
            sequence = _method(work, group, clock, method, sources[method][1])
            found[method] = sequence.result
            if method in earlier:
                rows[method] = earlier[method] | sequence.as_dict()
                continue
            remarks = work.remarks(group, method, sequence)
            told = {"seconds": round(clock.total, 3), "predicted": predicted[method]}
            rows[method] = sequence.as_dict() | told | remarks
        results = {key: before[key] for key in DESCRIPTION} | {
            "tier": tier,
            "images": len(test.y),
            "attack": {"radius": config.attack.radius, "norm": config.attack.norm, "seed": config.attack.seed},
            "attacks": [{"called": a.name} | a.described for a in work.attacks],
            "methods": rows,
            "paired": paired_differences(found),
            "environment": environment(),
        }
        if work.note is not None:
            results["note"] = work.note
        schema.write(path, schema.TierResults, results)
    return path, results


def _earlier(path: Location, stages: Stages) -> dict[str, Any]:
    """What the file has from before; nothing where it is damaged, as it is written again from the outcomes."""
    try:
        return schema.read(path, schema.TierResults, "it is written again") or {}
    except StoreDamagedError as error:
        stages.display.say(str(error))
        return {}


def _method(
    work: TierWork, group: zarr.Group, clock: CommittedSeconds, method: str, coefficients: CommittedCoefficients
) -> SequenceResult:
    stages, images = work.stages, len(work.test.y)
    weights = {"clean": 1} | {a.name: a.priced.passes.queries + a.priced.passes.steps for a in work.attacks}
    with stages.display.stage(method, images * sum(weights.values()), "passes") as advance:

        def on_batch(attack: str, images: int, fresh: bool) -> None:
            advance(images * weights[attack], fresh)
            if fresh:
                clock.commit()
                stages.events.write("batch", name=f"{method}_{attack}", images=images)

        def on_attack(outcome: AttackOutcome) -> None:
            stages.display.say(
                f"{method}: {outcome.name} fells {outcome.fallen} of {outcome.attacked}, "
                f"{100 * outcome.robust.value:.2f}% left"
            )

        return evaluate_sequence(
            work.evaluator(coefficients),
            images,
            work.against(group, method),
            norm=stages.config.attack.norm,
            group=group,
            name=method,
            batch=stages.config.evaluation.batch,
            on_batch=on_batch,
            on_attack=on_attack,
            of=coefficients.seal,
        )


def _predict(
    work: TierWork, methods: Mapping[str, CommittedCoefficients], before: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Show what methods will cost together, and return it for each: at most, and as the run lets expect."""
    if not methods:
        return {}
    stages, images, workers = work.stages, len(work.test.y), work.workers
    batch = min(stages.config.evaluation.batch, images)
    coefficients = next(iter(methods.values()))
    ((_, rows),) = work.evaluator(coefficients).map([Batch(np.arange(batch), Timed())])
    measured = Calibration(batch, float(rows[0, 0]), float(rows[0, 1]))
    priced = [a.priced for a in work.attacks]
    bound = predict_cost(priced, images, measured, workers=workers)
    expected: dict[str, Cost] = {}
    for method in methods:
        rates = before["methods"][method]
        expected[method] = predict_cost(
            priced, images, measured, workers=workers, clean=rates["clean"], robust=rates["robust"]
        )
    stages.display.say(
        f"a batch of {batch}: {1e3 * measured.query_seconds:.1f} ms for values, "
        f"{1e3 * measured.step_seconds:.1f} ms with gradients; {workers} at a time"
    )
    stages.display.say(f"at most (no image falls): {reduce(add, [bound] * len(methods))}")
    stages.display.say(f"expected (accuracies of the run under its own attack): {reduce(add, expected.values())}")
    if work.unpriced is not None:
        stages.display.say(f"not predicted: {work.unpriced}")
    shared = {"batch": asdict(measured), "workers": workers, "bound": bound.as_dict()}
    shared |= {} if work.unpriced is None else {"without": work.unpriced}
    return {method: shared | {"expected": cost.as_dict()} for method, cost in expected.items()}
