"""`advntk evaluate`: the methods of a finished run under another attack, or held to a tier of attacks."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import tomli_w
import zarr

from advntk_dist.config import AttackConfig, RunConfig, parse_config
from advntk_dist.environment import environment
from advntk_dist.errors import RequestError
from advntk_dist.evaluation.cost import Calibration, Cost, Timed, passes_of, predict_cost
from advntk_dist.evaluation.evaluator import Batch
from advntk_dist.evaluation.paired import paired_differences
from advntk_dist.evaluation.sequence import AttackOutcome, SequenceResult, evaluate_sequence
from advntk_dist.evaluation.tiers import TIERS, named, short_name, tier_attacks
from advntk_dist.pipeline.events import EventLog
from advntk_dist.pipeline.problem import Part, Problem
from advntk_dist.pipeline.rundir import RunDirectory
from advntk_dist.pipeline.stages import Stages
from advntk_dist.progress import Display
from advntk_dist.storage import guarded_group
from advntk_dist.storage.location import Location

DESCRIPTION = ("dataset", "network", "n_train", "n_val", "n_test")
"""Keys of results.json that say what a run is."""


def evaluate_again(
    out: str | Location,
    attack: str,
    overrides: Sequence[str] = (),
    *,
    address: str | None = None,
    workers: int | None = None,
    display: Display | None = None,
) -> tuple[Location, dict[str, Any]]:
    """Attack the three methods of a finished run with another attack; the run's own results stay as they are.

    Returns
    -------
    path, results
        The JSON file in the run directory, and what it holds.

    Raises
    ------
    RequestError
        If the run is not finished, or the attack is impossible.
    """
    folder, stages, before = open_finished(out, address=address, workers=workers, display=display)
    asked_attack = _asked(stages.config, attack, overrides)
    with folder.claimed(stages.config), stages:
        methods = stages.methods(chosen_time(stages.config, before), asked_attack)
    largest = max(m.max_perturbation for m in methods.values())
    results = {key: before[key] for key in DESCRIPTION} | {
        "attack": asked_attack.model_dump(mode="json") | {"max_perturbation": largest},
        "methods": {name: result.as_dict() for name, result in methods.items()},
        "paired": paired_differences(methods),
    }
    path = folder.root / f"results-{asked_attack.label}.json"
    folder.write_text(path, json.dumps(results, indent=2) + "\n")
    return path, results


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
        The JSON file below ``evaluation`` in the run directory, and what it holds.

    Raises
    ------
    RequestError
        If the run is not finished, or there is no such tier, method or number of images.
    """
    if tier not in TIERS:
        raise RequestError(f"--tier: no tier {tier!r}; there are {', '.join(TIERS)}")
    folder, stages, before = open_finished(out, address=address, workers=workers, display=display)
    test, config = first_images(stages, images), stages.config
    sources = stages.sources(chosen_time(config, before))
    asked = tuple(methods or sources)
    if unknown := set(asked) - set(sources):
        raise RequestError(f"--method: no method {', '.join(unknown)}; there are {', '.join(sources)}")
    attacks = tier_attacks(tier, config.attack, stages.problem.dataset.n_classes)
    label = f"{tier}_{config.attack.norm}_r{config.attack.radius:.6g}_seed{config.attack.seed}_images{len(test.y)}"
    path = folder.root / "evaluation" / f"{label}.json"
    dumped = [a.model_dump(mode="json") for a in attacks]
    with folder.claimed(config), stages, stages.events.stage("evaluate"):
        group = guarded_group(folder.evaluation / label, stages.identity | {"attacks": dumped})
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        predicted = known.get("predicted")
        if predicted is None:
            predicted = _predict(stages, test, sources[asked[0]][1], attacks, asked, before)
        earlier = known.get("methods", {})
        rows, found = {}, {}
        for method in (m for m in sources if m in asked or m in earlier):
            started = time.monotonic()
            sequence = _method(stages, group, method, sources[method][1], test, attacks)
            found[method] = sequence.result
            seconds = earlier.get(method, {}).get("seconds", round(time.monotonic() - started, 3))
            rows[method] = sequence.as_dict() | {"seconds": seconds}
        results = {key: before[key] for key in DESCRIPTION} | {
            "tier": tier,
            "images": len(test.y),
            "attack": {"radius": config.attack.radius, "norm": config.attack.norm, "seed": config.attack.seed},
            "attacks": [{"called": short_name(a)} | d for a, d in zip(attacks, dumped, strict=True)],
            "methods": rows,
            "paired": paired_differences(found),
            "predicted": predicted,
            "environment": environment(),
        }
        path.parent.mkdir(exist_ok=True)
        folder.write_text(path, json.dumps(results, indent=2) + "\n")
    return path, results


def _method(
    stages: Stages, group: zarr.Group, method: str, coefficients: Any, test: Part, attacks: tuple[AttackConfig, ...]
) -> SequenceResult:
    weights = {"clean": 1} | {short_name(a): (p := passes_of(a)).queries + p.steps for a in attacks}
    with stages.display.stage(f"{method}", len(test.y) * sum(weights.values()), "passes") as advance:

        def on_batch(attack: str, images: int, fresh: bool) -> None:
            advance(images * weights[attack], fresh)
            if fresh:
                stages.events.write("batch", name=f"{method}_{attack}", images=images)

        def on_attack(outcome: AttackOutcome) -> None:
            stages.display.say(
                f"{method}: {outcome.name} fells {outcome.fallen} of {outcome.attacked}, "
                f"{100 * outcome.robust.value:.2f}% left"
            )

        return evaluate_sequence(
            stages.evaluator(coefficients, test),
            len(test.y),
            named(attacks),
            norm=attacks[0].norm,
            group=group,
            name=method,
            batch=stages.config.evaluation.batch,
            on_batch=on_batch,
            on_attack=on_attack,
        )


def _predict(
    stages: Stages,
    test: Part,
    coefficients: Any,
    attacks: tuple[AttackConfig, ...],
    methods: Sequence[str],
    before: dict[str, Any],
) -> dict[str, Any]:
    """Show and return what the attacks will cost: at most, and as the run's own accuracies let expect."""
    batch = min(stages.config.evaluation.batch, len(test.y))
    ((_, rows),) = stages.evaluator(coefficients, test).map([Batch(np.arange(batch), Timed())])
    measured = Calibration(batch, float(rows[0, 0]), float(rows[0, 1]))
    workers = stages.workers
    bound = [predict_cost(attacks, len(test.y), measured, workers=workers) for _ in methods]
    rates = [(before["methods"][m]["clean"], before["methods"][m]["robust"]) for m in methods]
    expected = [
        predict_cost(attacks, len(test.y), measured, workers=workers, clean=clean, robust=robust)
        for clean, robust in rates
    ]
    stages.display.say(
        f"a batch of {batch}: {1e3 * measured.query_seconds:.1f} ms for values, "
        f"{1e3 * measured.step_seconds:.1f} ms with gradients; {workers} at a time"
    )
    stages.display.say(f"at most (no image falls): {_sum(bound)}")
    stages.display.say(f"expected (accuracies of the run under its own attack): {_sum(expected)}")
    return {
        "batch": asdict(measured),
        "workers": workers,
        "bound": _sum(bound).as_dict(),
        "expected": _sum(expected).as_dict(),
    }


def _sum(costs: list[Cost]) -> Cost:
    return Cost(sum(c.steps for c in costs), sum(c.queries for c in costs), sum(c.seconds for c in costs))


def open_finished(
    out: str | Location,
    *,
    address: str | None = None,
    workers: int | None = None,
    display: Display | None = None,
) -> tuple[RunDirectory, Stages, dict[str, Any]]:
    """The directory, stages and results of a run; RequestError if it is not finished."""
    folder = RunDirectory.at(out)
    config, results = folder.stored_config(), folder.read_results()
    if results is None:
        raise RequestError(f"{folder.root}: the run is not finished; `advntk run {folder.config} --out {folder.root}`")
    if workers is not None:
        evaluation = config.evaluation.model_copy(update={"workers": workers})
        config = config.model_copy(update={"evaluation": evaluation})
    return folder, Stages(Problem(config), folder, EventLog(folder.events), display or Display(), address), results


def chosen_time(config: RunConfig, results: dict[str, Any]) -> int:
    """Index of the time at which the run stopped early."""
    return list(config.evaluation.times).index(results["methods"]["early_stopped"]["t"])


def first_images(stages: Stages, images: int | None) -> Part:
    """The first so many test images; RequestError if there are not so many."""
    test = stages.problem.test
    if images is not None and not 1 <= images <= len(test.y):
        raise RequestError(f"--images {images}: the run has {len(test.y)} test images; ask for 1 to {len(test.y)}")
    return test if images is None else test.first(images)


def _asked(config: RunConfig, attack: str, overrides: Sequence[str]) -> AttackConfig:
    """The run's attack under another name, with overrides; what belongs to the old name or radius follows."""
    asked = [f"attack.{o}" for o in overrides]
    values = config.model_dump(mode="json", exclude_none=True)
    if not any(o.startswith("attack.step_size") for o in asked) and any(o.startswith("attack.radius") for o in asked):
        values["attack"].pop("step_size")  # follows the radius, unless it is asked for
    if attack != config.attack.name:
        values["attack"].pop("loss", None)  # each attack has a usual one
    where = "advntk evaluate"
    return parse_config(tomli_w.dumps(values), where=where, overrides=[f"attack.name={attack}", *asked]).attack
