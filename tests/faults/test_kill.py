"""SIGKILL of the driver at any moment, then the same command: the same results."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.config import load_config
from advntk_dist.pipeline.run import run
from advntk_dist.progress import Display
from tests.filled import fill_gram
from tests.pipeline.conftest import comparable
from tests.terminal import Process, Terminal, setting_words
from tests.undrawn import undrawn
from tests.waiting import wait_until

SETTINGS = (
    *("data.n_train=240", "data.n_val=64", "data.n_test=96", "network.name=mlp-2", "gram.tile=24", "attack.steps=5"),
    *("train.steps=30", "train.batch=32", "evaluation.times=[1e-3, 1e-2, 1e-1]", "evaluation.batch=8"),
    *("evaluation.tier=none",),
)
SHORT = ("data.n_train=80", "data.n_val=32", "data.n_test=48", "train.steps=15", "train.batch=16", "attack.steps=2")
"""Enough for two kills, and few images."""


def start(forks: Terminal, folder: Path, settings: tuple[str, ...]) -> Process:
    arguments = ("run", "digits", "--out", str(folder), *setting_words(settings))
    return forks.start("advntk_dist.cli", *arguments, undrawn=True)


def finish(forks: Terminal, folder: Path, settings: tuple[str, ...]) -> dict[str, Any]:
    process = start(forks, folder, settings)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return comparable(json.loads((folder / "results.json").read_text()))


def kill_somewhere(forks: Terminal, folder: Path, settings: tuple[str, ...], rng: random.Random) -> str:
    """Start, wait until a random number of events has been written, kill; the last event before that."""
    events = folder / "events.jsonl"

    def written() -> int:
        return len(events.read_text().splitlines()) if events.exists() else 0

    target = written() + rng.randint(1, 20)
    process = start(forks, folder, settings)
    wait_until(lambda: written() >= target or process.poll() is not None, 120, "the run makes no progress")
    time.sleep(rng.uniform(0, 0.2))
    process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL, "the run ended before it could be killed: make it longer"
    return events.read_text().splitlines()[-1]


def check(forks: Terminal, tmp_path: Path, kills: int, seed: int, settings: tuple[str, ...]) -> None:
    """A run that is killed again and again, in the folder "killed", ends as one in "undisturbed"."""
    with undrawn():
        undisturbed = run(load_config("digits", settings), tmp_path / "undisturbed", display=Display(quiet=True))
    rng, folder = random.Random(seed), tmp_path / "killed"
    stages = [json.loads(kill_somewhere(forks, folder, settings, rng)).get("stage") for _ in range(kills)]
    killed = finish(forks, folder, settings)
    assert killed == comparable(undisturbed.results), stages
    print(f"killed in stages {stages}")


def test_results_are_those_of_an_uninterrupted_run(forks: Terminal, tmp_path: Path) -> None:
    """The matrix is there; test_chaos_gram.py has those killed who build it."""
    settings = (*SETTINGS, *SHORT)
    for name in ("undisturbed", "killed"):
        fill_gram(load_config("digits", settings), tmp_path / name)
    check(forks, tmp_path, 2, 0, settings)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_results_are_those_of_an_uninterrupted_run_however_often(
    forks: Terminal, tmp_path: Path, ray_cluster: None
) -> None:
    """The build of the matrix included."""
    check(forks, tmp_path, 10, 1, SETTINGS)
