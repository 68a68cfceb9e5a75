"""Ctrl-C, and the SIGTERM of a scheduler: the first stops the command cleanly wherever it lands, a second at once."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_AGAIN_AFTER = 0.05
"""Seconds until a signal that was lost is sent again."""
_MOST_OFTEN = 200
"""Times that a lost signal is sent again."""


class _Interrupts:
    def __init__(self, message: str) -> None:
        self.message = message
        self.came = self.again = False
        self.lost = 0
        self.hook = sys.unraisablehook

    def handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Raise KeyboardInterrupt for the first signal and for one sent again; leave at once for another."""
        self.number = number
        if self.came and not self.again:
            os.write(2, f"{self.message}\n".encode())  # not through sys.stderr, which may be in the middle of a write
            os._exit(1)  # what is committed is whole at any moment, and Ray's processes end with this one
        self.came, self.again = True, False
        raise KeyboardInterrupt

    def unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        """Send a signal again whose KeyboardInterrupt was raised where Python lets no exception through."""
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            self.hook(lost)
        elif self.lost < _MOST_OFTEN:
            self.lost += 1
            # Not threading.Thread: this may run inside a collection that threading's own locks have caused.
            _thread.start_new_thread(self._send_again, ())

    def _send_again(self) -> None:
        time.sleep(_AGAIN_AFTER)
        main = threading.main_thread().ident
        assert main is not None
        self.again = True
        signal.pthread_kill(main, self.number)


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, and see that it is not lost.

    Python drops an exception that is raised in a callback of the garbage collector (JAX has one), in a finaliser or
    a weak reference's callback, after a word on standard error; the signal is then sent again a moment later. The
    second signal of a user prints the message and ends the process without waiting for anything. A SIGINT that is
    ignored, as a shell has it for commands in its background, stays so.

    Parameters
    ----------
    message
        What the second signal says.
    """
    interrupts = _Interrupts(message)
    numbers = [
        n for n in (signal.SIGINT, signal.SIGTERM) if n == signal.SIGTERM or signal.getsignal(n) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, interrupts.handle) for number in numbers}
    sys.unraisablehook = interrupts.unraisable
    try:
        yield
    finally:
        sys.unraisablehook = interrupts.hook
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def leave(code: int) -> NoReturn:
    """Exit after an interruption.

    Where Ray was imported the interpreter is not taken down: threads of its C++ core that are still starting have
    crashed there (SIGSEGV in place of the exit code). What it had to end is ended by then.
    """
    if "ray" not in sys.modules:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
