"""SIGKILL of the driver at any moment, then the same command: the same results."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.config import load_config
from advntk_dist.pipeline.run import run
from advntk_dist.progress import Display

SETTINGS = (
    "data.n_train=240",
    "data.n_val=64",
    "data.n_test=96",
    "network.name=mlp-2",
    "gram.tile=24",
    "attack.steps=5",
    "train.steps=30",
    "train.batch=32",
    "evaluation.times=[1e-3, 1e-2, 1e-1]",
    "evaluation.batch=8",
)
SHORT = ("gram.workers=1", "data.n_train=160", "data.n_test=64", "train.steps=15", "evaluation.times=[1e-3, 1e-2]")
"""Enough for two kills."""


def start(folder: Path, settings: tuple[str, ...]) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "advntk_dist", "run", "digits", "--out", str(folder), *words]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, start_new_session=True
    )


def finish(folder: Path, settings: tuple[str, ...]) -> dict[str, Any]:
    process = start(folder, settings)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err.decode()
    return comparable(json.loads((folder / "results.json").read_text()))


def comparable(results: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if key not in ("seconds", "peak_bytes")}


def kill_somewhere(folder: Path, settings: tuple[str, ...], rng: random.Random) -> str:
    """Start, wait until a random number of events has been written, kill; the last event before that."""
    events = folder / "events.jsonl"
    before = len(events.read_text().splitlines()) if events.exists() else 0
    process = start(folder, settings)
    target, deadline = before + rng.randint(1, 20), time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if events.exists() and len(events.read_text().splitlines()) >= target:
            break
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.2))
    process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL, "the run ended before it could be killed: make it longer"
    assert process.stderr is not None
    process.stderr.close()
    return events.read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("kills", "seed", "settings"),
    [(2, 0, (*SETTINGS, *SHORT)), pytest.param(10, 1, SETTINGS, marks=pytest.mark.slow)],
    ids=["short", "ten"],
)
@pytest.mark.timeout(900)
def test_results_are_those_of_an_uninterrupted_run(
    kills: int, seed: int, settings: tuple[str, ...], tmp_path: Path, ray_cluster: None
) -> None:
    undisturbed = run(load_config("digits", settings), tmp_path / "undisturbed", display=Display(quiet=True))
    rng, folder = random.Random(seed), tmp_path / "killed"
    stages = [json.loads(kill_somewhere(folder, settings, rng)).get("stage") for _ in range(kills)]
    killed = finish(folder, settings)
    assert killed == comparable(undisturbed.results), stages
    print(f"killed in stages {stages}")
