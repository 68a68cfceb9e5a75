"""`advntk evaluate --attack`: the methods of a finished run under another attack; how a finished run is opened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import tomli_w

from advntk_dist.config import AttackConfig, RunConfig, parse_config
from advntk_dist.errors import RequestError
from advntk_dist.evaluation.paired import paired_differences
from advntk_dist.pipeline.events import EventLog
from advntk_dist.pipeline.problem import Part, Problem
from advntk_dist.pipeline.rundir import RunDirectory
from advntk_dist.pipeline.stages import Stages
from advntk_dist.progress import Display
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
