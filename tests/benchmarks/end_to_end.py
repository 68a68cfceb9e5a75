"""Measure a whole run of a preset by neural-tangents and by our kernels, one after the other; prints and writes JSON.

    python tests/benchmarks/end_to_end.py FOLDER [--preset cifar10-cnn3] [--n-train 1000] [--n-val 64] [--n-test 64]
                                          [--steps 3] [--set section.key=value ...] [--out FILE]

FOLDER holds CIFAR-10. Both runs are ``advntk run`` in a process of its own, with everything that a user would wait for:
start-up, compilation, Ray. They differ in network.backend alone, and their results are compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import flags, machine, options, results_of, write

BEFORE, AFTER = "neural-tangents", "auto"


def run(backend: str, out: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of one run, in all and by stage, and its accuracies."""
    settings = {
        "data.path": json.dumps(arguments.folder),
        "data.n_train": arguments.n_train,
        "data.n_val": arguments.n_val,
        "data.n_test": arguments.n_test,
        "train.steps": arguments.steps,
        "train.batch": min(128, arguments.n_val),
        "evaluation.batch": min(128, arguments.n_test),
        "evaluation.times": "[1e-3, 1e-2]",
        "network.backend": backend,
    }
    chosen = [f"{key}={value}" for key, value in settings.items()] + arguments.set
    command = [sys.executable, "-m", "advntk_dist", "run", arguments.preset, "--out", str(out)]
    started = time.perf_counter()
    subprocess.run(command + flags(chosen), check=True)
    seconds = time.perf_counter() - started
    results = results_of(out)
    accuracies = {method: {k: v[k] for k in ("clean", "robust")} for method, v in results["methods"].items()}
    return {"settings": chosen, "total": seconds, "stages": results["seconds"], "accuracies": accuracies}


def main() -> None:
    """Run twice, compare, write the JSON."""
    parser = options(__doc__, "end-to-end.json")
    parser.add_argument("folder", help="folder with CIFAR-10")
    parser.add_argument("--preset", default="cifar10-cnn3")
    parser.add_argument("--n-train", type=int, default=1000)
    parser.add_argument("--n-val", type=int, default=64)
    parser.add_argument("--n-test", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3, help="training steps")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="on both sides")
    arguments = parser.parse_args()
    arguments.folder = str(Path(arguments.folder).resolve())
    with tempfile.TemporaryDirectory() as folder:
        runs = {backend: run(backend, Path(folder) / backend, arguments) for backend in (BEFORE, AFTER)}
    before, after = runs[BEFORE], runs[AFTER]
    gain = {stage: before["stages"][stage] / after["stages"][stage] for stage in before["stages"]}
    gain["total"] = before["total"] / after["total"]
    for stage, ratio in gain.items():
        seconds = [r["total"] if stage == "total" else r["stages"][stage] for r in (before, after)]
        print(f"{stage:10} {seconds[0]:9.1f} s {seconds[1]:9.1f} s {ratio:6.1f}")
    for r in runs.values():  # where the data lie is no part of the result
        r["settings"] = [s for s in r["settings"] if not s.startswith("data.path=")]
    write(arguments.out, {"environment": machine(), "preset": arguments.preset, "runs": runs, "gain": gain})


if __name__ == "__main__":
    main()
