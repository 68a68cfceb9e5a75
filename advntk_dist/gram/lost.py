"""Errors of Ray that mean "the actor is gone", and what they say in one line."""

from __future__ import annotations

from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)

LOST = (
    RayActorError,
    WorkerCrashedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,  # Ray's memory monitor has killed it
    RuntimeEnvSetupError,  # its node could not start it
)
"""What it had to do is tried again, by another one. Everything else ends the work."""


def reason(error: BaseException) -> str:
    """The class of an error and its first line, which for most of Ray's errors is followed by many."""
    told = error.error_message if isinstance(error, RuntimeEnvSetupError) else None
    lines = str(told or error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
