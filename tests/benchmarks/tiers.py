"""Our tiers beside AutoAttack's own code, on the same predictor and images: what each leaves, and what each costs.

    python tests/benchmarks/tiers.py RUN [--method adv_ntk] [--images 100] [--tier standard] [--out FILE]

RUN is a finished run; PyTorch and the package ``autoattack`` must be installed. An image that AutoAttack breaks and the
tier does not is a fault of the tier, and the other way round one of AutoAttack; both are counted.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import zarr

from advntk_dist.attacks.autoattack import autoattack
from advntk_dist.attacks.registry import TIERS
from advntk_dist.environment import environment
from advntk_dist.evaluation.evaluate import evaluate_sequence
from advntk_dist.evaluation.evaluator import InProcess, is_right
from advntk_dist.evaluation.statistics import Accuracy
from advntk_dist.evaluation.tiers import named, tier_attacks
from advntk_dist.pipeline.evaluate import first_images, open_finished
from advntk_dist.pipeline.stages import sources
from bench import options, write


def main() -> None:
    """Attack twice, print the table, write JSON."""
    parser = options(__doc__, "autoattack.json")
    parser.add_argument("run", type=Path)
    parser.add_argument("--method", default="adv_ntk")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--tier", choices=[t for t in TIERS if t != "fast"], default="standard")
    arguments = parser.parse_args()

    run, _, chosen = open_finished(arguments.run)
    config = run.context.config
    test, attack = first_images(run, arguments.images), config.attack
    with run.context.folder.claimed(config), run.context:
        predictor = run.outcomes.predictor(sources(run, chosen)[arguments.method]())
        begun = time.perf_counter()
        ours = evaluate_sequence(
            InProcess(lambda: predictor, test.x, test.y),
            len(test.y),
            named(tier_attacks(arguments.tier, attack, predictor.outputs)),
            norm=attack.norm,
            group=zarr.create_group(zarr.storage.MemoryStore(), zarr_format=3),
            name="predictor",
            batch=predictor.batch,
            on_attack=lambda o: print(o.name, o.broken, flush=True),
        )
        between = time.perf_counter()
        clean = is_right(predictor, test.x, test.y)[:, 0] > 0
        theirs = clean.copy()
        found = autoattack(
            predictor, test.x[clean], test.y[clean], radius=attack.radius, norm=attack.norm, seed=attack.seed
        )  # fmt: skip
        theirs[clean] = is_right(predictor, found, test.y[clean])[:, 0] > 0
        done = time.perf_counter()

    left = ours.result.robust_right
    report = {
        "run": {"network": config.network.name, "n_train": config.data.n_train, "radius": attack.radius},
        "method": arguments.method,
        "tier": arguments.tier,
        "images": len(test.y),
        "clean": float(clean.mean()),
        "ours": accuracy(left) | {"seconds": between - begun},
        "autoattack_standard": accuracy(theirs) | {"seconds": done - between},
        "broken_by_autoattack_alone": int((left & ~theirs).sum()),
        "broken_by_ours_alone": int((theirs & ~left).sum()),
        "environment": environment(),
    }
    print(json.dumps({k: v for k, v in report.items() if k != "environment"}, indent=2))
    write(arguments.out, report)


def accuracy(left: np.ndarray) -> dict[str, object]:
    """A share of the images with its interval."""
    found = Accuracy.of(left)
    return {"robust": found.value, "robust_interval": [found.low, found.high]}


if __name__ == "__main__":
    main()
