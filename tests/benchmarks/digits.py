"""The digits figures of README: `advntk run digits` under its own attack and in the worst case; writes JSON.

    python tests/benchmarks/digits.py [--runs FOLDER] [--out FILE]

Each run is the command that it is named with, with all processes as users start them; the run directories stay where
FOLDER is given, and the same command goes on from them. A last one holds the default run to `advntk check`.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import advntk, flags, options, results_of, write

RUNS: dict[str, tuple[str, ...]] = {
    "default": (),
    "squared-error": ("attack.loss=squared-error",),
    "paper": ("train.recipe=paper", "train.lr=0.1"),
}
"""Settings of each run beside the preset's."""


def ran(name: str, folder: Path) -> dict[str, Any]:
    """What a run says, once it is finished."""
    words, begun = flags(RUNS[name]), time.perf_counter()
    advntk("run", "digits", "--out", str(folder / name), *words)
    seconds = time.perf_counter() - begun
    results = results_of(folder / name)
    kept = ("attack", "methods", "paired", "worst_case", "tier", "seconds")
    shown = " ".join(["advntk", "run", "digits", *words])
    return {"command": shown, "wall_seconds": round(seconds, 1)} | {key: results[key] for key in kept}


def checked(folder: Path) -> dict[str, Any]:
    """What `advntk check` says of the default run."""
    path = folder / "default"
    advntk("check", str(path), check=False)  # a check that fails is a finding, too
    found = json.loads((path / "check.json").read_text("utf-8"))
    return {key: found[key] for key in ("method", "images", "passed", "checks", "own_attack", "white_box")}


def main() -> None:
    """Run what is missing, then write the JSON."""
    parser = options(__doc__, "digits.json")
    parser.add_argument("--runs", type=Path, help="folder of the run directories; by default they are not kept")
    arguments = parser.parse_args()
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.runs or Path(temporary)
        runs = {name: ran(name, folder) for name in RUNS}
        environment = results_of(folder / "default")["environment"]
        report = {
            "environment": environment | {"load_before": before, "load_after": os.getloadavg()},
            "runs": runs,
            "check": checked(folder),
        }
    write(arguments.out, report)
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
