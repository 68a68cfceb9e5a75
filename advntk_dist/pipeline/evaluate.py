"""`advntk evaluate --attack`: the methods of a finished run under another attack; how a finished run is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tomli_w

from advntk_dist.config import AttackConfig, RunConfig, parse_config
from advntk_dist.errors import RequestError
from advntk_dist.evaluation.statistics import paired_differences
from advntk_dist.pipeline.directory import READ_ONLY, RunDirectory
from advntk_dist.pipeline.finished import read_results, refresh_results
from advntk_dist.pipeline.problem import Part, Problem
from advntk_dist.pipeline.stages import OpenRun, methods
from advntk_dist.progress import Display
from advntk_dist.results import schema
from advntk_dist.storage.paths import Location


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
    run, _, chosen = open_finished(out, address=address, workers=workers, display=display)
    context, folder = run.context, run.context.folder
    asked_attack = _asked(context.config, attack, overrides)
    path = folder.root / f"results-{asked_attack.label}.json"
    if folder.is_read_only and (found := schema.read(path, schema.AttackedAgain, READ_ONLY)) is not None:
        return path, found
    with folder.claimed(context.config), context:
        found = methods(run, chosen, asked_attack)
        largest = max(m.max_perturbation for m in found.values())
        results = context.description() | {
            "attack": asked_attack.described() | {"max_perturbation": largest},
            "methods": {name: result.as_dict() for name, result in found.items()},
            "paired": paired_differences(found),
        }
        schema.write(path, schema.AttackedAgain, results)
        refresh_results(folder, context.config, context.display.say)
    return path, results


def open_finished(
    out: str | Location,
    *,
    address: str | None = None,
    workers: int | None = None,
    display: Display | None = None,
) -> tuple[OpenRun, dict[str, Any], int]:
    """A finished run, its results, and the index of its time of early stopping.

    Raises
    ------
    RequestError
        If the run is not finished.
    StoreDamagedError
        If its results are not those of its outcomes.
    """
    folder = RunDirectory.at(out)
    config = folder.stored_config()
    results, outcomes = read_results(folder, config)
    if results is None or outcomes is None:
        raise folder.unfinished()
    if workers is not None:
        evaluation = config.evaluation.model_copy(update={"workers": workers})
        config = config.model_copy(update={"evaluation": evaluation})
    return OpenRun.at(folder, Problem(config), display or Display(), address), results, outcomes.chosen


def first_images(run: OpenRun, images: int | None) -> Part:
    """The first so many test images; RequestError if there are not so many."""
    test = run.context.problem.test
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
