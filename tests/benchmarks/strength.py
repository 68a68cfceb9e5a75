"""How strong the linearised attack is: beside PGD-20 on margins at several radii, and within tier standard at some.

    python tests/benchmarks/strength.py RUN [--images 1000] [--tier linf:0.03137 ...] [--out FILE]

RUN is a finished run, whose methods are attacked on the first test images. Of each radius: the robust accuracy under
the linearised attack and under PGD, and the images that each breaks alone. At the radii of --tier, what all attacks of
tier standard leave; the linearised one is their first, so that the others meet what it leaves. The JSON is written
after every case.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from advntk_dist.attacks import registry
from advntk_dist.attacks.registry import bind_attack
from advntk_dist.config import AttackConfig
from advntk_dist.evaluation.evaluate import evaluate_sequence
from advntk_dist.evaluation.evaluator import InProcess, is_right
from advntk_dist.evaluation.statistics import Accuracy
from advntk_dist.evaluation.tiers import named, tier_attacks
from advntk_dist.pipeline.evaluate import first_images, open_finished
from advntk_dist.pipeline.stages import sources
from advntk_dist.predictor import KernelPredictor
from advntk_dist.spec import Norm
from bench import machine, options, write

CASES: list[tuple[Norm, float]] = [("linf", 2 / 255), ("linf", 4 / 255), ("linf", 8 / 255), ("linf", 16 / 255)]
CASES += [("l2", 0.5), ("l2", 1.0)]
STEPS = 20


def case(predictor: KernelPredictor, x: Any, y: Any, norm: Norm, radius: float, tier: bool) -> dict[str, Any]:
    """The robust accuracies of one predictor in one ball, of images that are classified correctly and the others."""
    right = is_right(predictor, x, y)[:, 0] > 0

    def robust(config: AttackConfig) -> tuple[Any, float]:
        begun, flags = time.perf_counter(), np.zeros(len(y), bool)
        found = bind_attack(config)(predictor, x[right], y[right], seed=0, indices=np.flatnonzero(right))
        seconds = time.perf_counter() - begun
        flags[right] = is_right(predictor, found, y[right])[:, 0] > 0
        return flags, seconds

    def attack(name: str, **more: Any) -> AttackConfig:
        return AttackConfig(name=name, norm=norm, radius=radius, loss="margin", **more)

    ours, took = robust(attack(registry.LINEAR.name))
    pgd, pgd_took = robust(attack(registry.PLAIN.name, steps=STEPS, step_size=radius / 10))
    row: dict[str, Any] = {"norm": norm, "radius": radius, "clean": float(right.mean())}
    row |= {"linear": _words(ours), f"pgd-{STEPS}": _words(pgd), "broken_by_pgd_alone": int((ours & ~pgd).sum())}
    row |= {"broken_by_linear_alone": int((pgd & ~ours).sum())}
    row["seconds"] = {"linear": took, f"pgd-{STEPS}": pgd_took}
    if tier:
        found = evaluate_sequence(
            InProcess(lambda: predictor, x, y),
            len(y),
            named(tier_attacks("standard", attack(registry.LINEAR.name), predictor.outputs)),
            norm=norm,
            group=zarr.create_group(zarr.storage.MemoryStore(), zarr_format=3),
            name="predictor",
            batch=predictor.batch,
        )
        attacks = {a.name: a.broken for a in found.attacks}
        row["standard"] = {"robust": found.result.robust.value, "broken": attacks}
    return row


def _words(flags: Any) -> dict[str, Any]:
    found = Accuracy.of(flags)
    return {"robust": found.value, "interval": [found.low, found.high]}


def main() -> None:
    """Attack every method at every radius, print a line each, write the JSON."""
    parser = options(__doc__, "strength.json")
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--tier", nargs="*", default=[], metavar="NORM:RADIUS", help="where tier standard is met, too")
    arguments = parser.parse_args()
    run, _, chosen = open_finished(arguments.run)
    config, context = run.context.config, run.context
    test = first_images(run, arguments.images)
    report: dict[str, Any] = {"environment": machine(), "dataset": config.data.name, "network": config.network.name}
    report |= {"n_train": config.data.n_train, "images": len(test.y), "dtype": config.gram.dtype, "rows": []}
    with context.folder.claimed(config, reading=True), context:
        for norm, radius in CASES:
            for method, coefficients in sources(run, chosen).items():
                predictor = run.outcomes.predictor(coefficients())
                row = case(predictor, test.x, test.y, norm, radius, f"{norm}:{radius:.4g}" in arguments.tier)
                report["rows"].append({"method": method} | row)
                print(report["rows"][-1], flush=True)
                write(arguments.out, report)


if __name__ == "__main__":
    main()
