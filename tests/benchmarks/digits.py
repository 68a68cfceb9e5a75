"""The digits figures of README: `advntk run digits` under its own attack and in the worst case; writes JSON.

    python tests/benchmarks/digits.py [--runs FOLDER] [--out FILE]

Each run is the command that it is named with, with all processes as users start them; the run directories stay where
FOLDER is given, and the same command goes on from them. A last one holds the default run to `advntk check`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUNS: dict[str, tuple[str, ...]] = {
    "default": (),
    "squared-error": ("attack.loss=squared-error",),
    "paper": ("train.recipe=paper", "train.lr=0.1"),
}
"""Settings of each run beside the preset's."""


def command(name: str, folder: Path) -> list[str]:
    """The words of a run's command after ``advntk``."""
    return ["run", "digits", "--out", str(folder / name), *(w for s in RUNS[name] for w in ("--set", s))]


def ran(name: str, folder: Path) -> dict[str, Any]:
    """What a run says, once it is finished."""
    words, begun = command(name, folder), time.perf_counter()
    subprocess.run([sys.executable, "-m", "advntk_dist", "-q", *words], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    results = json.loads((folder / name / "results.json").read_text("utf-8"))
    kept = ("attack", "methods", "paired", "worst_case", "tier", "seconds")
    shown = " ".join(["advntk", *words[:2], *words[4:]])
    return {"command": shown, "wall_seconds": round(seconds, 1)} | {key: results[key] for key in kept}


def checked(folder: Path) -> dict[str, Any]:
    """What `advntk check` says of the default run."""
    path = folder / "default"
    subprocess.run(
        [sys.executable, "-m", "advntk_dist", "-q", "check", str(path)], check=False, stdout=subprocess.DEVNULL
    )
    found = json.loads((path / "check.json").read_text("utf-8"))
    return {key: found[key] for key in ("method", "images", "passed", "checks", "own_attack", "white_box")}


def main() -> None:
    """Run what is missing, then write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="folder of the run directories; by default they are not kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "digits.json")
    arguments = parser.parse_args()
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.runs or Path(temporary)
        runs = {name: ran(name, folder) for name in RUNS}
        environment = json.loads((folder / "default" / "results.json").read_text("utf-8"))["environment"]
        report = {
            "environment": environment | {"load_before": before, "load_after": os.getloadavg()},
            "runs": runs,
            "check": checked(folder),
        }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
