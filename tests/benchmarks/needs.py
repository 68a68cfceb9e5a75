"""Memory and disk that README's main job needs, in a fresh clone with an environment of its own; writes JSON.

    python tests/benchmarks/needs.py [--out FILE]

Memory is the largest sum over all processes that the command started, Ray's among them, of their proportional set
sizes (a page that k processes share counts 1/k in each), looked at five times a second, over two runs: a peak between
two looks is missed. Each run compiles its programs, as the first one on a machine does. ``environment`` and
``environment_dev`` are what the packages take on disk without and with those of the tests; ``run`` is the run
directory. On a busy machine the peaks of the processes fall together less often, so run it on a quiet one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from advntk_dist.environment import environment
from bench import ROOT, options, write

RUNS = 2
MARK = "ADVNTK_BENCHMARK"
"""Environment variable that marks the processes of a command: Ray's outlive their parents, but inherit it."""


class PeakMemory:
    """Largest memory so far of the processes that carry a mark in their environment, in bytes."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self.bytes = 0

    def look(self) -> None:
        """Add up what the marked processes take now."""
        total = 0
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it ended meanwhile, or is another user's
                if process.environ().get(MARK) == self.mark:
                    total += process.memory_full_info().pss
        self.bytes = max(self.bytes, total)


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Watch the processes that are started with ``{MARK: peak.mark}`` in their environment."""
    peak, done = PeakMemory(), threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            peak.look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def disk_bytes(folder: Path) -> int:
    """What a folder takes on disk, hard links counted once."""
    files = {(s.st_dev, s.st_ino): s.st_blocks * 512 for p in folder.rglob("*") if (s := p.lstat())}
    return sum(files.values())


def uv_cache() -> str:
    """The folder of downloaded packages, which commands keep whose other caches are empty."""
    return subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()


def fresh_clone(folder: str) -> Path:
    """A clone of this repository, without an environment."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(Path(folder, "clone"))], check=True)
    return Path(folder, "clone")


def main() -> None:
    """Clone, build both environments, run the main job, and write the figures."""
    parser = options(__doc__, "needs.json")
    arguments = parser.parse_args()
    env = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    env["UV_CACHE_DIR"] = uv_cache()
    command = ["uv", "run", "--no-dev", "advntk", "run", "digits"]
    with tempfile.TemporaryDirectory(prefix="needs") as folder:
        clone = fresh_clone(folder)
        subprocess.run(["uv", "sync", "-q", "--no-dev"], cwd=clone, env=env, check=True)
        disk = {"environment": disk_bytes(clone / ".venv")}
        peaks = []
        for turn in range(RUNS):
            env["XDG_CACHE_HOME"] = str(Path(folder, f"caches{turn}"))
            shutil.rmtree(clone / "runs", ignore_errors=True)
            with peak_memory() as peak:
                subprocess.run(command, cwd=clone, env=env | {MARK: peak.mark}, stdout=sys.stderr, check=True)
            peaks.append(peak.bytes)
        disk["run"] = disk_bytes(clone / "runs")
        subprocess.run(["uv", "sync", "-q"], cwd=clone, env=env, check=True)
        disk["environment_dev"] = disk_bytes(clone / ".venv")
    report = {
        "command": " ".join(command),
        "peak_bytes": {"run": max(peaks), "of_each": peaks},
        "disk_bytes": disk,
        "environment": environment(),
    }
    write(arguments.out, report)
    print(json.dumps({key: report[key] for key in ("disk_bytes", "peak_bytes")}))


if __name__ == "__main__":
    main()
