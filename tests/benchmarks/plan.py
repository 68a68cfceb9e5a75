"""Compare what `advntk plan` predicts with what `advntk run` then takes, stage by stage; prints and writes JSON.

    python tests/benchmarks/plan.py --images FOLDER [--case digits ...] [--repeat 1] [--out FILE]

FOLDER holds CIFAR-10; without it only the case of digits is measured. Each case is planned in a process of its own,
which measures the machine for some seconds, and then run in another. The load of the machine is kept beside the
figures, because both sides suffer from it, and not always alike.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from advntk_dist.environment import environment
from bench import advntk, flags, options, results_of, write

CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "digits": ("digits", ()),
    "cifar10-mlp3-4000": (
        "cifar10-mlp5",
        (
            "network.name=mlp-3",
            "data.n_train=4000",
            "data.n_val=500",
            "data.n_test=500",
            "gram.tile=1024",
            "train.steps=20",
        ),
    ),
    "cifar10-cnn3-600": (
        "cifar10-cnn3",
        (
            "data.n_train=600",
            "data.n_val=64",
            "data.n_test=64",
            "gram.tile=128",
            "train.steps=3",
            "train.batch=32",
            "evaluation.batch=32",
            "evaluation.times=[1e-3, 1e-2]",
        ),
    ),
}
WITHIN = 0.3
"""Of the measured seconds that a prediction may miss."""


def measure(name: str, images: str | None) -> dict[str, Any]:
    """Plan one case, run it, and set the seconds side by side."""
    preset, settings = CASES[name]
    chosen = [*settings, *([f"data.path={json.dumps(images)}"] if preset != "digits" else [])]
    words = [preset, *flags(chosen)]
    load = [os.getloadavg()[0]]
    started = time.perf_counter()
    plan = json.loads(advntk("plan", *words, "--json"))
    planned = time.perf_counter() - started
    load.append(os.getloadavg()[0])
    with tempfile.TemporaryDirectory() as folder:
        advntk("run", *words, "--out", folder)
        results = results_of(Path(folder))
    load.append(os.getloadavg()[0])
    predicted, measured = plan["prediction"]["seconds"], results["seconds"]
    stages = {
        stage: {"predicted": predicted[stage], "measured": seconds, "ratio": predicted[stage] / seconds}
        for stage, seconds in measured.items()
    }
    total = {"predicted": sum(predicted.values()), "measured": sum(measured.values())}
    passes = {solve: row["passes"] for solve, row in results["solver"]["solves"].items()}
    return {
        "settings": list(settings),
        "stages": stages,
        "total": total | {"ratio": total["predicted"] / total["measured"]},
        "passes": {"predicted": plan["prediction"]["passes"], "measured": passes},
        "plan_seconds": planned,
        "load": load,
    }


def main() -> None:
    """Measure the cases, print the ratios, write the JSON."""
    parser = options(__doc__, "plan.json")
    parser.add_argument("--images", help="folder with CIFAR-10")
    parser.add_argument("--case", action="append", choices=CASES, help="only these")
    parser.add_argument("--repeat", type=int, default=1, help="times that each case is measured")
    arguments = parser.parse_args()
    images = None if arguments.images is None else str(Path(arguments.images).resolve())
    wanted = arguments.case or [name for name in CASES if images is not None or name == "digits"]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    for _ in range(arguments.repeat):
        for name in wanted:
            row = measure(name, images)
            found[name].append(row)
            print(f"{name}: load {', '.join(f'{value:.1f}' for value in row['load'])}")
            for stage, seconds in [*row["stages"].items(), ("total", row["total"])]:
                missed = "" if abs(seconds["ratio"] - 1) <= WITHIN else f"  more than {100 * WITHIN:.0f}% away"
                print(
                    f"  {stage:10}{seconds['predicted']:8.1f} s predicted {seconds['measured']:8.1f} s measured "
                    f"{seconds['ratio']:6.2f}{missed}",
                    flush=True,
                )
            # Each time: the next one may be stopped.
            write(arguments.out, {"environment": environment(), "within": WITHIN, "cases": found})


if __name__ == "__main__":
    main()
