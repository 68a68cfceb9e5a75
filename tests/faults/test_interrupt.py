"""Ctrl-C once, or the SIGTERM of a scheduler: no traceback, committed steps, one line with the command that goes on."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

SETTINGS = (
    "data.n_train=120",
    "data.n_val=40",
    "data.n_test=40",
    "gram.tile=40",
    "gram.workers=1",
    "train.steps=200",
    "train.batch=16",
)


# A test suite that runs in the background of a shell hands an ignored SIGINT down; on a terminal it is not ignored.
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from advntk_dist.cli import main
main(sys.argv[1:])
"""


def test_one_signal_and_the_run_says_how_to_go_on(tmp_path: Path) -> None:
    """The second command goes on from the first one's steps, and is stopped in its turn."""
    arguments = ["run", "digits", "--out", str(tmp_path / "run"), *(w for s in SETTINGS for w in ("--set", s))]
    events = tmp_path / "run" / "events.jsonl"
    done = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        code, err = signalled(arguments, number, events, done)
        assert code == 1, err
        assert "Traceback" not in err
        last = err.strip().splitlines()[-1]
        assert last == f"advntk: interrupted; nothing is lost, go on with: {shlex.join(['advntk', *arguments])}"
        assert not (tmp_path / "run" / "results.json").exists()
        steps = committed(events)
        assert sorted(set(steps)) == steps, "a step was done twice"
        assert done < steps[-1] < 200
        done = steps[-1]


def signalled(arguments: list[str], number: signal.Signals, events: Path, done: int) -> tuple[int, str]:
    """Exit code and standard error of a run that gets a signal once it has gone past ``done`` steps."""
    started = subprocess.Popen(
        [sys.executable, "-c", START, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 150
        while not any(step > done for step in committed(events)):
            assert time.monotonic() < deadline, "training did not begin"
            assert started.poll() is None, started.communicate()[1]
            time.sleep(0.1)
        started.send_signal(number)
        _, err = started.communicate(timeout=60)
    finally:
        started.kill()
        started.wait(10)
    return started.returncode, err


def committed(events: Path) -> list[int]:
    """The training steps of a run's event log, in order; the last line may be half written."""
    if not events.exists():
        return []
    lines = events.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    found = [json.loads(line) for line in lines]
    return [event["step"] for event in found if event.get("event") == "step"]
