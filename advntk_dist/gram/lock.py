"""One builder a store: an operating-system lock beside it, which dies with the process that holds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from advntk_dist.errors import StoreBusyError


def lock_path(store: Path) -> Path:
    """Where the lock of a store lies: beside it, so that the store itself can be moved into place whole."""
    return store.with_name(store.name + ".lock")


@contextmanager
def builder_lock(store: Path) -> Iterator[None]:
    """Hold the lock of the store at ``store``.

    Raises
    ------
    StoreBusyError
        At once, if another builder holds it.
    """
    store.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_path(store))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreBusyError(
            f"{store}: another process is building this store; wait until it ends, or watch it with "
            f"`advntk gram status`"
        ) from error
    try:
        yield
    finally:
        lock.release()
