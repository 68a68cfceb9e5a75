"""Ctrl-C once, or the SIGTERM of a scheduler: no traceback, committed steps, one line with the command that goes on."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_and_the_run_says_how_to_go_on(number: signal.Signals, tmp_path: Path) -> None:
    arguments = ["run", "digits", "--out", str(tmp_path / "run"), *(w for s in SETTINGS for w in ("--set", s))]
    events = tmp_path / "run" / "events.jsonl"
    started = subprocess.Popen(
        [sys.executable, "-c", START, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 150
        while not (events.exists() and '"step"' in events.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline, "training did not begin"
            assert started.poll() is None, started.communicate()[1]
            time.sleep(0.1)
        started.send_signal(number)
        _, err = started.communicate(timeout=60)
    finally:
        started.kill()
        started.wait(10)
    assert started.returncode == 1
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert last == f"advntk: interrupted; nothing is lost, go on with: {shlex.join(['advntk', *arguments])}"
    assert not (tmp_path / "run" / "results.json").exists()
    steps = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    assert 0 < max(event["step"] for event in steps if event.get("event") == "step") < 200
