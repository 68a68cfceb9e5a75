"""`advntk evaluate --attack` and `advntk check`: a finished run under further attacks; how a finished run is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w

from advntk_dist.config import AttackConfig, RunConfig, parse_config
from advntk_dist.environment import environment
from advntk_dist.errors import RequestError
from advntk_dist.evaluation.statistics import Accuracy, paired_differences
from advntk_dist.pipeline.coefficients import CommittedCoefficients
from advntk_dist.pipeline.context import Part, Problem
from advntk_dist.pipeline.directory import READ_ONLY, RunDirectory
from advntk_dist.pipeline.finished import outcome_names, read_results, refresh_results, tier_label
from advntk_dist.pipeline.outcomes import Outcomes
from advntk_dist.pipeline.stages import OpenRun, methods, sources
from advntk_dist.pipeline.worst_case import keeps
from advntk_dist.predictor import KernelPredictor
from advntk_dist.progress import Display
from advntk_dist.results import schema, sealed
from advntk_dist.results.schema import ADV_NTK
from advntk_dist.storage import Records
from advntk_dist.storage.paths import Location

if TYPE_CHECKING:
    from advntk_dist.evaluation.examined_predictor import Check, ExaminedPredictor, Outcome

TOGETHER = "together"
"""Name of the outcomes under all attacks of the checks."""
EXACT_BATCH = 8
"""Images that go through the float64 predictor at once."""


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
    if folder.is_read_only and (stored := sealed.read(path, schema.AttackedAgain, READ_ONLY)) is not None:
        return path, sealed.plain(stored)
    with folder.claimed(context.config), context:
        found = methods(run, chosen, asked_attack)
        largest = max(m.max_perturbation for m in found.values())
        results = context.description() | {
            "attack": asked_attack.described() | {"max_perturbation": largest},
            "methods": {name: result.as_dict() for name, result in found.items()},
            "paired": paired_differences(found),
        }
        sealed.write(path, schema.AttackedAgain, results)
        refresh_results(folder, context.config, context.display.say)
    return path, results


def radius_curves_of(out: str | Location) -> tuple[Location, dict[str, Any]]:
    """The results of a finished run, and what they say of its methods over the radius; errors as of open_finished."""
    folder = RunDirectory.at(out)
    results, _ = read_results(folder, folder.stored_config())
    if results is None:
        raise folder.unfinished()
    return folder.results, results["radius"]


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


def check_run(
    out: str | Location, *, images: int = 200, method: str = ADV_NTK, display: Display | None = None
) -> tuple[Location, dict[str, Any]]:
    """Examine a method on the first ``images`` test images (all, if there are fewer) in this process.

    Returns
    -------
    path, report
        check.json in the run directory, and what it holds: ``passed``, one row a check, and how the run's own attack
        compares with the white-box attacks of the checks.

    Raises
    ------
    RequestError
        If the run is not finished, or there is no such method or number of images.
    """
    # These load scipy.stats, which takes more than a second and which a run, that imports this module, does not need.
    from advntk_dist.evaluation.checks import checklist, white_box
    from advntk_dist.evaluation.examined_predictor import ExaminedPredictor

    shown = display or Display()
    run, _, chosen = open_finished(out, display=shown)
    context, problem, attack = run.context, run.context.problem, run.context.config.attack
    test, folder = first_images(run, min(images, len(problem.test.y))), context.folder
    known = outcome_names(context.config, chosen)
    if method not in known:
        raise RequestError(f"--method: no method {method!r}; there are {', '.join(known)}")

    path = folder.root / "check.json"
    done = sealed.read(path, schema.CheckResults, READ_ONLY) if folder.is_read_only else None
    if done is not None and (done.method, done.images, done.attack) == (method, len(test.y), attack.described()):
        return path, sealed.plain(done)

    def exact() -> KernelPredictor:
        train = problem.train.raw.astype(np.float64) / 255 - 0.5
        return KernelPredictor(problem.net, train, coefficients[method](), batch=EXACT_BATCH)

    def on_outcome(outcome: Outcome) -> None:
        a = outcome.attack
        shown.say(f"{a.name} ({a.loss}), radius {a.radius:.4g}: {100 * outcome.accuracy:.1f}% robust")

    def on_check(check: Check) -> None:
        shown.say(f"{'pass' if check.passed else 'FAIL'}: {check.name}")

    with folder.claimed(context.config), context:
        coefficients = sources(run, chosen)
        subject = ExaminedPredictor(
            run.outcomes.predictor(coefficients[method]()),
            test.x,
            test.y,
            attack,
            batch=context.config.evaluation.batch,
            on_outcome=on_outcome,
        )
        source = run.outcomes.predictor(coefficients["ntk"]())
        # An attack that goes beyond the radius on purpose is compared, not checked.
        own = subject.under(attack) if attack.spec.keeps_ball else None
        checks = checklist(subject, source, exact, exact_images=EXACT_BATCH, on_check=on_check)
        white = white_box(subject)
        report = context.description() | {
            "method": method,
            "images": len(test.y),
            "attack": attack.described(),
            "passed": all(c.passed for c in checks),
            "checks": [asdict(c) for c in checks],
            "clean": float(subject.clean.mean()),
            "own_attack": None if own is None else _accuracy(own.robust),
            "white_box": _accuracy(white if own is None else white & own.robust),
            "environment": environment(),
        }
        sealed.write(path, schema.CheckResults, report)
        _commit(run.outcomes, method, subject, coefficients[method])
        refresh_results(folder, context.config, context.display.say)
    return path, report


def _commit(outcomes: Outcomes, method: str, subject: ExaminedPredictor, coefficients: CommittedCoefficients) -> None:
    """Commit which images are robust under the checks' attacks within the radius, so that these count among all met."""
    config, attack, n = outcomes.context.config, outcomes.context.config.attack, len(subject.y)
    met = [o for o in subject.outcomes if o.attack.label != attack.label and keeps(o.attack.described(), attack)]
    settings = {"attacks": [o.attack.described() for o in met], "called": [TOGETHER], "images": n}
    group = outcomes.group_at(tier_label(config, "check", n), settings)
    robust = np.logical_and.reduce([o.robust for o in met])
    sizes = np.max([o.sizes for o in met], axis=0)
    for name, table in (("clean", subject.clean[:, None]), (TOGETHER, np.column_stack([robust, sizes]))):
        records = Records(group, f"{method}_{name}", n, (table.shape[1],), span=n, of=coefficients.seal)
        records.write(0, table.astype(np.float64))


def _accuracy(robust: Any) -> dict[str, Any]:
    found = Accuracy.of(robust)
    return {"robust": found.value, "robust_interval": [found.low, found.high], "n_test": found.n}
