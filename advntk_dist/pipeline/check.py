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
from advntk_dist.pipeline.evaluate import first_images, open_finished
from advntk_dist.pipeline.outcomes import refresh_results, tier_label
from advntk_dist.pipeline.rundir import READ_ONLY
from advntk_dist.pipeline.scoring import CommittedCoefficients
from advntk_dist.pipeline.stages import Stages
from advntk_dist.pipeline.worst_case import foreign_outcomes_named, keeps
from advntk_dist.predictor import KernelPredictor
from advntk_dist.progress import Display
from advntk_dist.results import schema
from advntk_dist.results.schema import ADV_NTK
from advntk_dist.storage import Records, guarded_group
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
    folder, stages, _, chosen = open_finished(out, display=shown)
    test = first_images(stages, min(images, len(stages.problem.test.y)))
    sources = stages.sources(chosen)
    if method not in sources:
        raise RequestError(f"--method: no method {method!r}; there are {', '.join(sources)}")
    problem, attack = stages.problem, stages.config.attack

    path = folder.root / "check.json"
    known = schema.read(path, schema.CheckResults, READ_ONLY) if folder.is_read_only else None
    if known and (known["method"], known["images"], known["attack"]) == (method, len(test.y), attack.described()):
        return path, known

    def exact() -> KernelPredictor:
        train = problem.train.raw.astype(np.float64) / 255 - 0.5
        return KernelPredictor(problem.net, train, sources[method][1](), batch=EXACT_BATCH)

    def on_outcome(outcome: Outcome) -> None:
        a = outcome.attack
        shown.say(f"{a.name} ({a.loss}), radius {a.radius:.4g}: {100 * outcome.accuracy:.1f}% robust")

    def on_check(check: Check) -> None:
        shown.say(f"{'pass' if check.passed else 'FAIL'}: {check.name}")

    with folder.claimed(stages.config), stages:
        subject = ExaminedPredictor(
            stages.predictor(sources[method][1]()),
            test.x,
            test.y,
            attack,
            batch=stages.config.evaluation.batch,
            on_outcome=on_outcome,
        )
        source = stages.predictor(sources["ntk"][1]())
        # An attack that goes beyond the radius on purpose is compared, not checked.
        own = subject.under(attack) if attack.spec.keeps_ball else None
        checks = checklist(subject, source, exact, exact_images=EXACT_BATCH, on_check=on_check)
        white = white_box(subject)
        report = stages.description() | {
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
        _commit(stages, method, subject, sources[method][1])
        refresh_results(folder, stages.config, stages.display.say)
    return path, report


def _commit(stages: Stages, method: str, subject: ExaminedPredictor, coefficients: CommittedCoefficients) -> None:
    """Commit which images are robust under the checks' attacks within the radius, so that these count among all met."""
    attack, n = stages.config.attack, len(subject.y)
    met = [o for o in subject.outcomes if o.attack.label != attack.label and keeps(o.attack.described(), attack)]
    identity = {"attacks": [o.attack.described() for o in met], "called": [TOGETHER], "images": n}
    place = stages.folder.evaluation / tier_label(stages.config, "check", n)
    with foreign_outcomes_named(place):
        group = guarded_group(place, stages.identity | identity)
    robust = np.logical_and.reduce([o.robust for o in met])
    sizes = np.max([o.sizes for o in met], axis=0)
    for name, table in (("clean", subject.clean[:, None]), (TOGETHER, np.column_stack([robust, sizes]))):
        records = Records(group, f"{method}_{name}", n, (table.shape[1],), span=n, of=coefficients.seal)
        records.write(0, table.astype(np.float64))


def _accuracy(robust: Any) -> dict[str, Any]:
    found = Accuracy.of(robust)
    return {"robust": found.value, "robust_interval": [found.low, found.high], "n_test": found.n}
