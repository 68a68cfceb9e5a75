"""Run `advntk finite-width` and keep what it says: slopes, closed form, adversarial training; writes JSON.

    python tests/benchmarks/finite_width.py PRESET --run FOLDER [--set section.key=value ...] [--out FILE]

The run directory FOLDER stays: the same command after an interruption goes on, and after a finished run only writes
the JSON again. Seconds are of the stages, as the run has recorded them; CPU seconds of all its processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

KEPT = ("dataset", "network", "n_train", "n_val", "n_test", "attack", "methods", "flow", "training", "seconds")


def load_of(events: Path) -> dict[str, Any]:
    """Seconds from the first event to the last, pauses and other load included."""
    times = [json.loads(line)["time"] for line in events.read_text(encoding="utf-8").splitlines()]
    return {"wall_seconds": round(times[-1] - times[0], 1)}


def main() -> None:
    """Run, then write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "advntk_dist", "finite-width", arguments.preset, "--out", str(arguments.run)]
    before = os.getloadavg()
    subprocess.run(command + [word for setting in arguments.set for word in ("--set", setting)], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    results = json.loads((arguments.run / "results.json").read_text(encoding="utf-8"))
    report = {
        "environment": results["environment"] | {"load_before": before, "load_after": os.getloadavg()},
        "preset": arguments.preset,
        "settings": [setting for setting in arguments.set if not setting.startswith("data.path=")],
        "cpu_seconds_of_this_start": round(used.ru_utime + used.ru_stime, 1),
        **load_of(arguments.run / "events.jsonl"),
        **{key: results[key] for key in KEPT},
    }
    out = arguments.out or Path(__file__).parent / "results" / f"finite-width-{arguments.preset}.json"
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written: {out}")


if __name__ == "__main__":
    main()
