"""Waits that end with what is waited for, within bounds, and another process to wait for."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HOLD = """
import sys, time
from advntk_dist.storage.locks import builder_lock, exclusive_lock
from advntk_dist.storage.paths import location
root = location(sys.argv[1])
with {lock}:
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(
    root: object, lock: str = 'exclusive_lock(root / ".lock", root, "busy")'
) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lock, by default that of a folder; killed at the end if it was not before."""
    command = [sys.executable, "-c", HOLD.format(lock=lock), str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            yield other
        finally:
            other.kill()
            other.wait()


def wait_until(there: Callable[[], bool], seconds: float = 100.0, why: str = "") -> None:
    """Return once something is so.

    Raises
    ------
    AssertionError
        If it is not so after that many seconds: many more than it takes on a machine with other work to do.
    """
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, why or f"not so after {seconds:g} s"
        time.sleep(0.05)
