"""All of CIFAR-10 through the whole job on one machine, killed on the way; times, memory and accuracies as JSON.

    python tests/benchmarks/full_run.py --images PATH --run RUN --kill-after 600 3000

Starts ``advntk run cifar10-mlp5-full --out RUN``, kills it (SIGKILL) the given seconds after each start, and at last
lets it finish. A run that is finished is only read, so that figures of a run that was made by hand can be collected.
Seconds are those that stages took over all starts; what else the machine did meanwhile is in them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from advntk_dist.environment import environment
from bench import flags, options, results_of, write


def work(run: Path, preset: str, changes: list[str], kills: list[float]) -> None:
    """Start the job once for each kill, and once more."""
    command = [sys.executable, "-m", "advntk_dist", "run", preset, "--out", str(run), *flags(changes)]
    for limit in [*kills, None]:
        process = subprocess.Popen(command)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            continue
        if code:
            raise SystemExit(code)


def collect(run: Path, driver_peak: int | None) -> dict[str, Any]:
    """What the finished run says about itself; ``driver_peak`` stands in where its events do not hold that."""
    results = results_of(run)
    starts, previous = 0, None
    workers = driver = 0
    kills: list[str] = []
    for line in (run / "events.jsonl").read_text().splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut short by a kill
        if event["event"] == "run begins":
            starts += 1
            if previous is not None and previous["event"] != "run ends":
                kills.append(str(previous.get("stage", "between stages")))
        workers = max(workers, event.get("receipt", {}).get("peak_bytes", 0))
        driver = max(driver, event.get("peak_bytes", 0))
        previous = event
        if event["event"] == "run ends":
            break  # what comes later, such as a report that is written again, is not the run
    return {key: value for key, value in results.items() if key not in ("environment", "peak_bytes")} | {
        "total_seconds": sum(results["seconds"].values()),
        "starts": starts,
        "killed_during": kills,
        "peak_bytes": {"driver": driver or driver_peak, "worker": workers},
        "environment": environment(),
    }


def main() -> None:
    """Run, or read, and write the JSON."""
    parser = options(__doc__, "full-cifar10.json")
    parser.add_argument("--images", required=True, help="CIFAR-10, as data.path takes it")
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument("--preset", default="cifar10-mlp5-full")
    parser.add_argument("--set", nargs="*", default=[], metavar="section.key=value", help="changes to the preset")
    parser.add_argument("--kill-after", type=float, nargs="*", default=[], help="seconds")
    parser.add_argument("--driver-peak", type=int, help="bytes, for runs whose events do not hold it")
    arguments = parser.parse_args()
    if not (arguments.run / "results.json").exists():
        changes = [f"data.path={arguments.images}", *arguments.set]
        work(arguments.run, arguments.preset, changes, arguments.kill_after)
    report = collect(arguments.run, arguments.driver_peak)
    write(arguments.out, report)
    for name, row in report["methods"].items():
        print(f"{name}: clean {row['clean']:.4f}, robust {row['robust']:.4f}")
    print({stage: round(seconds) for stage, seconds in report["seconds"].items()}, report["peak_bytes"])


if __name__ == "__main__":
    main()
