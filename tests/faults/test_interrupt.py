"""Ctrl-C once, or the SIGTERM of a scheduler: no traceback, committed steps, one line with the command that goes on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.config import load_config
from tests.filled import fill_gram
from tests.terminal import Terminal, setting_words
from tests.waiting import wait_until

SETTINGS = (
    *("data.n_train=120", "data.n_val=40", "data.n_test=40", "gram.tile=40", "gram.workers=1", "network.name=mlp-2"),
    *("evaluation.times=[1e-2, 1e-1]", "train.steps=200", "train.batch=16", "evaluation.tier=none"),
)


# A test suite that runs in the background of a shell hands an ignored SIGINT down; on a terminal it is not ignored.
START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from advntk_dist.cli import main
main()
"""


def test_one_signal_and_the_run_says_how_to_go_on(forks: Terminal, tmp_path: Path) -> None:
    """The second command goes on from the first one's steps, and is stopped in its turn."""
    fill_gram(load_config("digits", SETTINGS), tmp_path / "run")
    arguments = ["run", "digits", "--out", str(tmp_path / "run"), *setting_words(SETTINGS)]
    events = tmp_path / "run" / "events.jsonl"
    done = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        code, err = signalled(forks, arguments, number, events, done)
        assert code == 1, err
        assert "Traceback" not in err
        last = err.strip().splitlines()[-1]
        assert last == interrupted(arguments)
        assert not (tmp_path / "run" / "results.json").exists()
        steps = committed(events)
        assert sorted(set(steps)) == steps, "a step was done twice"
        assert done < steps[-1] < 200
        done = steps[-1]


@pytest.mark.parametrize(
    ("event", "seconds"),
    [
        ("stage begins", 1.5),
        # Ray's own agents may take a minute to see that they are alone.
        pytest.param("stage begins", 0.0, marks=pytest.mark.slow),
        pytest.param("stage begins", 4.0, marks=pytest.mark.slow),
        pytest.param("worker_started", 0.5, marks=pytest.mark.slow),
        pytest.param("worker_ready", 0.0, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_while_ray_starts_and_while_kernels_compile(tmp_path: Path, event: str, seconds: float) -> None:
    """A terminal sends it to the whole process group; nothing of Ray outlives the command."""
    arguments = ["gram", "build", "digits", "--out", str(tmp_path / "run"), *setting_words(SETTINGS)]
    events = tmp_path / "run" / "events.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", START, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as started:
        try:
            wait_until(lambda: event in names(events) or started.poll() is not None)
            time.sleep(seconds)
            assert started.poll() is None
            os.killpg(started.pid, signal.SIGINT)
            _, err = started.communicate(timeout=60)
            assert started.returncode == 1, err
            assert err.strip().splitlines()[-1] == interrupted(arguments)
            assert "Traceback" not in err
            assert "ignored" not in err
            wait_until(lambda: not in_group(started.pid))
        finally:
            started.kill()


SPIN = """
import gc, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from advntk_dist.cli import advntk, main

@advntk.command()
def spin():
    {body}
    print("went on to the end")

sys.argv = ["advntk", "spin"]
main()
"""
IN_COLLECTION = """left = [signal.{name}]
    def collected(phase, info):
        if left:
            os.kill(os.getpid(), left.pop())
            sum(range(10))
    gc.callbacks.append(collected)
    gc.collect()
    time.sleep(20)"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_inside_a_collection_is_not_lost(name: str) -> None:
    """Python drops what a callback of the garbage collector raises; JAX has such a callback."""
    text = SPIN.format(body=IN_COLLECTION.format(name=name))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == interrupted(["spin"])


def test_a_second_ctrl_c_does_not_wait_for_the_end_of_the_first() -> None:
    body = "os.kill(os.getpid(), signal.SIGINT)"
    text = SPIN.format(body=f"try:\n        {body}\n    finally:\n        {body}; time.sleep(40)")
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == interrupted(["spin"])
    assert time.monotonic() - begun < 30


def interrupted(arguments: list[str]) -> str:
    """The line that an interrupted command ends with."""
    return f"advntk: interrupted; nothing is lost, go on with: {shlex.join(['advntk', *arguments])}"


def in_group(group: int) -> bool:
    """Whether a process of a group is there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def signalled(
    forks: Terminal, arguments: list[str], number: signal.Signals, events: Path, done: int
) -> tuple[int | None, str]:
    """Exit code and standard error of a run that gets a signal once it has gone past ``done`` steps."""
    started = forks.start("advntk_dist.cli", *arguments)
    try:
        wait_until(
            lambda: started.poll() is not None or any(step > done for step in committed(events)), 150,
            "training did not begin",
        )  # fmt: skip
        started.send_signal(number)
        _, err = started.communicate(timeout=60)
    finally:
        started.kill()
    return started.returncode, err


def committed(events: Path) -> list[int]:
    """The training steps of a run's event log, in order."""
    return [event["step"] for event in noted(events) if event.get("event") == "step"]


def names(events: Path) -> list[str]:
    """What is noted in an event log."""
    return [event["event"] for event in noted(events)]


def noted(events: Path) -> list[dict[str, Any]]:
    """A run's event log; the last line may be half written."""
    if not events.exists():
        return []
    lines = events.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    return [json.loads(line) for line in lines]
