"""Waits that end with what is waited for, within bounds."""

from __future__ import annotations

import time
from collections.abc import Callable


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
