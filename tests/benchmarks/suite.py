"""Time README's test command in a fresh clone, environment built, every cache of ours empty; prints and writes JSON.

    python tests/benchmarks/suite.py [--workers 1] [--load 2] [--repeat 1] [--out FILE]

Processor seconds are those of the whole machine while the command runs, user and system: Ray's processes outlive
those that started them, and no process is told what all of them took. So run it on a machine that does nothing else;
``idle_load`` says what it did in the ten seconds before. With ``--load`` that many processes spin beside the command,
and the processor seconds are theirs as well. ``peak_bytes`` is the memory of the command's own processes (needs.py).
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from advntk_dist.environment import environment
from bench import ROOT, options, write
from needs import MARK, fresh_clone, peak_memory, uv_cache

GOALS = {"wall_minutes": 10.0, "processor_minutes": 18.0}


def readme_command() -> str:
    """The second command of the README, which is the last line of what CI runs."""
    return (ROOT / ".ci" / "run").read_text().splitlines()[-1]


def processor_seconds() -> float:
    """User and system seconds of all processes of this machine since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))


def processor() -> str:
    """Name of the processor and whether it has AVX-512, both of which the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    text = cpuinfo.read_text()
    name = text.partition("model name\t: ")[2].partition("\n")[0]
    return f"{name}, {'with' if 'avx512f' in text else 'without'} AVX-512"


def measure(clone: Path, caches: Path, *, workers: int | None, load: int) -> dict[str, Any]:
    """One run of the command in ``clone``: minutes, processor minutes, and pytest's closing line."""
    command = readme_command() if workers is None else readme_command().replace("& pytest", f"& pytest -n{workers}")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "VIRTUAL_ENV", "PYTEST_", "PYTHON"))}
    env |= {"XDG_CACHE_HOME": str(caches), "UV_CACHE_DIR": uv_cache()}
    idle = psutil.cpu_percent(interval=10.0)
    with ExitStack() as stack:
        for _ in range(load):
            spin = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(spin.kill)
        started, before = time.monotonic(), processor_seconds()
        peak = stack.enter_context(peak_memory())
        done = subprocess.run(
            ["bash", "-c", command], cwd=clone, env=env | {MARK: peak.mark}, capture_output=True, text=True, check=False
        )
        wall, spent = time.monotonic() - started, processor_seconds() - before
    closing = next((line for line in reversed(done.stdout.splitlines()) if re.search(r"\d+ passed", line)), "")
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:], file=sys.stderr)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", closing)}
    return {
        "command": command,
        "exit": done.returncode,
        "counts": counts,
        "wall_minutes": round(wall / 60, 2),
        "processor_minutes": round(spent / 60, 2),
        "peak_bytes": peak.bytes,
        "busy_beside": load,
        "idle_load": idle,
    }


def main() -> None:
    """Clone, build the environment, run, print, and write the figures."""
    parser = options(__doc__)
    parser.add_argument("--workers", type=int, help="of pytest-xdist, in place of the two of the command")
    parser.add_argument("--load", type=int, default=0, help="processes that spin beside it")
    parser.add_argument("--repeat", type=int, default=1, help="runs, the compiled programs of one kept for the next")
    parser.add_argument("--out", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="suite") as folder:
        clone, caches = fresh_clone(folder), Path(folder, "caches")
        shared = ROOT.parent / "shared"
        if shared.is_dir():  # real data that tests look for beside the checkout
            Path(folder, "shared").symlink_to(shared)
        subprocess.run(["uv", "sync", "-q"], cwd=clone, check=True)
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True, check=True)
        for turn in range(arguments.repeat):
            found = measure(clone, caches, workers=arguments.workers, load=arguments.load)
            runs.append({"compiled_programs": "kept" if turn else "none", **found})
            print(json.dumps(runs[-1]), flush=True)
    report = {"commit": commit.stdout.strip(), "goals": GOALS, "runs": runs}
    report |= {"processor": processor(), "environment": environment()}
    if arguments.out:
        write(arguments.out, report)
    sys.exit(max(run["exit"] for run in runs))


if __name__ == "__main__":
    main()
