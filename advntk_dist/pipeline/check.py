"""`advntk check`: the gradient-masking checklist on one method of a finished run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from advntk_dist.environment import environment
from advntk_dist.errors import RequestError
from advntk_dist.evaluation.checks import checklist, white_box
from advntk_dist.evaluation.examined_predictor import Check, ExaminedPredictor, Outcome
from advntk_dist.evaluation.statistics import Accuracy
from advntk_dist.pipeline.coefficients import CommittedCoefficients
from advntk_dist.pipeline.directory import READ_ONLY
from advntk_dist.pipeline.evaluate import first_images, open_finished
from advntk_dist.pipeline.finished import outcome_names, refresh_results, tier_label
from advntk_dist.pipeline.outcomes import Outcomes
from advntk_dist.pipeline.stages import sources
from advntk_dist.pipeline.worst_case import keeps
from advntk_dist.predictor import KernelPredictor
from advntk_dist.progress import Display
from advntk_dist.results import schema
from advntk_dist.results.schema import ADV_NTK
from advntk_dist.storage import Records
from advntk_dist.storage.paths import Location

TOGETHER = "together"
"""Name of the outcomes under all attacks of the checks."""
EXACT_BATCH = 8
"""Images that go through the float64 predictor at once."""


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
    shown = display or Display()
    run, _, chosen = open_finished(out, display=shown)
    context, problem, attack = run.context, run.context.problem, run.context.config.attack
    test, folder = first_images(run, min(images, len(problem.test.y))), context.folder
    known = outcome_names(context.config, chosen)
    if method not in known:
        raise RequestError(f"--method: no method {method!r}; there are {', '.join(known)}")

    path = folder.root / "check.json"
    done = schema.read(path, schema.CheckResults, READ_ONLY) if folder.is_read_only else None
    if done and (done["method"], done["images"], done["attack"]) == (method, len(test.y), attack.described()):
        return path, done

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
        schema.write(path, schema.CheckResults, report)
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
