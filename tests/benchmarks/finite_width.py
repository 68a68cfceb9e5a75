"""Run `advntk finite-width` and keep what it says: slopes, closed form, adversarial training; writes JSON.

    python tests/benchmarks/finite_width.py PRESET --run FOLDER [--set section.key=value ...] [--out FILE]

The run directory FOLDER stays: the same command after an interruption goes on, and after a finished run only writes
the JSON again. Seconds are of the stages, as the run has
recorded them, over all its starts; a pause of the machine counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench import RESULTS, flags, options, results_of, write

KEPT = ("dataset", "network", "n_train", "n_val", "n_test", "attack", "methods", "flow", "training", "seconds")


def main() -> None:
    """Run, then write the JSON."""
    parser = options(__doc__)
    parser.add_argument("preset")
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "advntk_dist", "finite-width", arguments.preset, "--out", str(arguments.run)]
    before = os.getloadavg()
    subprocess.run(command + flags(arguments.set), check=True)
    results = results_of(arguments.run)
    report = {
        "environment": results["environment"] | {"load_before": before, "load_after": os.getloadavg()},
        "preset": arguments.preset,
        "settings": [setting for setting in arguments.set if not setting.startswith("data.path=")],
        **{key: results[key] for key in KEPT},
    }
    out = arguments.out or RESULTS / f"finite-width-{arguments.preset}.json"
    write(out, report)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
