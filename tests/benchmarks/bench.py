"""What the benchmarks share: options, calls timed in turn, commands in processes of their own, and the JSON file."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from advntk_dist.environment import environment

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
CLOCKS = ("wall", "cpu")
"""Elapsed seconds, and the processor seconds of all threads, which other load on the machine disturbs less."""


def options(doc: str | None, out: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help is the docstring of a script; ``out`` names the JSON in ``results`` that --out replaces."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if out is not None:
        parser.add_argument("--out", type=Path, default=RESULTS / out, help="JSON to write")
    return parser


def machine(**more: Any) -> dict[str, Any]:
    """Versions and machine, with the load of now and what else is known of them."""
    return environment() | more | {"load": os.getloadavg()}


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Write the JSON, and the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def results_of(run: Path) -> dict[str, Any]:
    """The results.json of a finished run."""
    found: dict[str, Any] = json.loads((run / "results.json").read_text("utf-8"))
    return found


def commit(checkout: Path) -> str:
    """The commit of a checkout."""
    words = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def flags(settings: Iterable[str]) -> list[str]:
    """Settings section.key=value as the words of a command."""
    return [word for setting in settings for word in ("--set", setting)]


def advntk(*words: str, check: bool = True) -> str:
    """Standard output of the command in a process of its own."""
    command = [sys.executable, "-m", "advntk_dist", "-q", *words]
    return subprocess.run(command, check=check, stdout=subprocess.PIPE, text=True).stdout


def timed(
    calls: Mapping[str, Callable[[], Any]], repeats: int, before: Callable[[], Any] = lambda: None
) -> dict[str, list[tuple[float, float]]]:
    """Seconds by :data:`CLOCKS` of calls made in turn, each ``repeats`` times, with ``before`` ahead of every call."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            before()
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            samples[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return samples


def medians(
    calls: Mapping[str, Callable[[], Any]], repeats: int, before: Callable[[], Any] = lambda: None
) -> dict[str, dict[str, float]]:
    """Medians of :func:`timed` by clock."""
    samples = timed(calls, repeats, before)
    return {
        name: dict(zip(CLOCKS, map(statistics.median, zip(*s, strict=True)), strict=True))
        for name, s in samples.items()
    }
