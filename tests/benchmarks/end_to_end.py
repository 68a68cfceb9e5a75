"""Measure a whole run of a preset twice, one after the other; prints and writes JSON.

    python tests/benchmarks/end_to_end.py FOLDER [--preset cifar10-cnn3] [--n-train 1000] [--n-val 64] [--n-test 64]
                                          [--steps 3] [--set section.key=value ...] [--out FILE]
    python tests/benchmarks/end_to_end.py FOLDER --other CHECKOUT --preset cifar10-mlp5 --n-train 10000 --n-val 1000
                                          --n-test 1000 --steps 30 [--set-this section.key=value ...]

FOLDER holds CIFAR-10. Both runs are ``advntk run`` in a process of its own, with everything that a user would wait
for: start-up, compilation, Ray. Without --other they differ in network.backend alone, neural-tangents against our
kernels, on a few times and small batches. With --other the rival is another checkout, as of an earlier commit, with the
preset's own times and batches; --set-this gives keys that it does not know. Their results are compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import ROOT, commit, flags, machine, options, results_of, write

FEW = ("train.batch={batch}", "evaluation.batch={batch}", "evaluation.times=[1e-3, 1e-2]")
"""Settings of the runs that neural-tangents takes part in."""


def run(checkout: Path, preset: str, settings: list[str], out: Path) -> dict[str, Any]:
    """Seconds of one run, in all and by stage, its largest memory in bytes, and its accuracies."""
    command = [sys.executable, "-m", "advntk_dist", "run", preset, "--out", str(out), *flags(settings)]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)})
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(command)}: failed")
    results = results_of(out)
    accuracies = {method: {k: v[k] for k in ("clean", "robust")} for method, v in results["methods"].items()}
    shown = [s for s in settings if not s.startswith("data.path=")]  # where the data lie is no part of the result
    return {"settings": shown, "total": seconds, "stages": results["seconds"], "accuracies": accuracies} | {
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "largest_process_bytes": 1024 * usage.ru_maxrss,
    }


def main() -> None:
    """Run twice, compare, write the JSON."""
    parser = options(__doc__, "end-to-end.json")
    parser.add_argument("folder", type=Path, help="folder with CIFAR-10")
    parser.add_argument("--other", type=Path, help="another checkout, the rival")
    parser.add_argument("--preset", default="cifar10-cnn3")
    parser.add_argument("--n-train", type=int, default=1000)
    parser.add_argument("--n-val", type=int, default=64)
    parser.add_argument("--n-test", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3, help="training steps")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="on both sides")
    parser.add_argument("--set-this", action="append", default=[], metavar="section.key=value", help="with --other")
    arguments = parser.parse_args()
    shared = [f"data.path={json.dumps(str(arguments.folder.resolve()))}", f"train.steps={arguments.steps}"]
    shared += [f"data.{key}={getattr(arguments, key)}" for key in ("n_train", "n_val", "n_test")]
    if arguments.other is None:
        batch = min(128, arguments.n_val, arguments.n_test)
        shared += [setting.format(batch=batch) for setting in FEW]
        sides = {name: (ROOT, [f"network.backend={name}"]) for name in ("neural-tangents", "auto")}
    else:
        sides = {"other": (arguments.other.resolve(), []), "this": (ROOT, arguments.set_this)}
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: run(checkout, arguments.preset, shared + own + arguments.set, Path(folder) / name)
            for name, (checkout, own) in sides.items()
        }
    before, after = runs.values()
    gain = {stage: before["stages"][stage] / after["stages"][stage] for stage in before["stages"]}
    gain["total"] = before["total"] / after["total"]
    for stage, ratio in gain.items():
        seconds = [r["total"] if stage == "total" else r["stages"][stage] for r in (before, after)]
        print(f"{stage:10} {seconds[0]:9.1f} s {seconds[1]:9.1f} s {ratio:6.1f}")
    report = {"environment": machine(), "preset": arguments.preset, "runs": runs, "gain": gain}
    if arguments.other is not None:
        report["commits"] = {name: commit(checkout) for name, (checkout, _) in sides.items()}
    write(arguments.out, report)


if __name__ == "__main__":
    main()
