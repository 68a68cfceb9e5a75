"""Following a job: its log as it grows, over lost connections, to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from advntk_dist.errors import AdvNTKError
from advntk_dist.jobs.client import ENDED, JobServer, Unreachable

Emit = Callable[[str], None]
"""Called with text as it comes, line ends included."""

_TRIES = 10
"""Connections in a row that may fail before we give up."""
_PAUSE = 2.0
"""Seconds between two of them."""
_SILENCE = 60.0
"""Seconds without a word after which a connection may be a dead one: the job is asked after, and it is made anew."""
_KNOWN = (2, 3)
"""Exit codes of a run that say more than failure."""


@dataclass(frozen=True)
class JobState:
    """Where a job stands.

    Attributes
    ----------
    job
        Id of the submission.
    status
        Ray's word: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
    exit_code
        Of the run, None before it has ended.
    message
        One line of Ray's on its state.
    tail
        The last lines that it printed.
    """

    job: str
    status: str
    exit_code: int | None
    message: str
    tail: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in ENDED

    @property
    def our_exit_code(self) -> int:
        """Exit status of a command that waited for the job: the run's own where it says something, else 1."""
        if self.status == "SUCCEEDED":
            return 0
        return self.exit_code if self.exit_code in _KNOWN else 1

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        code = f" (exit code {self.exit_code})" if self.exit_code else ""
        why = f": {self.message}" if self.ended and self.status != "SUCCEEDED" and not code else ""
        return f"{self.job}: {self.status.lower()}{code}{why}"


def state(server: JobServer, job: str, lines: int = 10) -> JobState:
    """Where a job stands now, with the last lines of its log."""
    info = server.info(job)
    text = server.log(job) if lines and str(info.status.value) != "PENDING" else ""
    message = (info.message or "").strip().splitlines()
    tail = tuple(text.splitlines()[-lines:]) if lines else ()
    return JobState(job, str(info.status.value), info.driver_exit_code, message[0] if message else "", tail)


def wait_for_start(server: JobServer, job: str, seconds: float) -> JobState:
    """Where a job stands once it runs, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        now = state(server, job)
        if now.status != "PENDING" or time.monotonic() > deadline:
            return now
        time.sleep(0.5)


def follow(server: JobServer, job: str, emit: Emit) -> JobState:
    """Hand over the log of a job as it grows until the job ends; where it stands then.

    Raises
    ------
    AdvNTKError
        If the cluster does not answer any more; the job may go on.
    """
    shown = failures = 0
    while True:
        before = shown
        try:
            shown = asyncio.run(_tail(server, job, shown, emit))
            now = state(server, job, 0)
            if now.ended:
                emit(server.log(job)[shown:])
                return now
            failures = 0
        except Unreachable:
            failures = 1 if shown > before else failures + 1
            if failures >= _TRIES:
                raise AdvNTKError(
                    f"{server.address} does not answer any more; the job may go on: follow it with `advntk submit "
                    f"{job} --address {server.address} --follow`, or submit the run again"
                ) from None
        time.sleep(_PAUSE)


async def _tail(server: JobServer, job: str, shown: int, emit: Emit) -> int:
    """Hand over what the log has beyond ``shown`` characters until the connection ends, or falls silent.

    Returns how much is shown then.
    """
    import aiohttp

    seen = 0
    lines = aiter(server.ray.tail_job_logs(job))
    try:
        while True:
            async with asyncio.timeout(_SILENCE):
                text = await anext(lines)
            new = text[max(0, shown - seen) :]
            seen += len(text)
            if new:
                emit(new)
                shown = seen
    except (StopAsyncIteration, TimeoutError, aiohttp.ClientError, RuntimeError):
        pass  # what is wrong is what the next question will say; a line that was cut comes again
    return max(shown, seen)
