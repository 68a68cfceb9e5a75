"""One process at a time: a lock of the operating system on a disk, a lease in an object store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from advntk_dist.errors import StoreBusyError
from advntk_dist.storage.location import Location


@contextmanager
def sole(lock: Location, guards: Location, busy: str) -> Iterator[None]:
    """Hold a lock.

    Parameters
    ----------
    lock
        The file or object of the lock.
    guards
        The folder that it is for.
    busy
        What to say where another process holds it.

    Raises
    ------
    StoreBusyError
        At once, if another process holds it; at the end or at the next write, if a lease was lost on the way.
    OSError
        If a local lock cannot be made.
    StoreError
        If an object store refuses, or does not answer.
    """
    if not isinstance(lock, Path):
        from advntk_dist.storage.lease import Lease
        from advntk_dist.storage.objects import ObjectPath

        assert isinstance(guards, ObjectPath)
        with Lease(lock, guards, busy):
            yield
        return
    from advntk_dist.storage.heartbeat import Heartbeat, last_seen

    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        seen = last_seen(lock)
        raise StoreBusyError(busy if seen is None else f"{busy} ({seen[0]})") from error
    try:
        with Heartbeat(lock):
            yield
    finally:
        held.release()


def holder_of(lock: Location) -> tuple[str, float, bool] | None:
    """Who holds a lock, or died with it: in words, how many seconds ago they were last seen, and whether they live.

    None where nobody holds it: it was given back, or never taken. Found without touching it, by this machine's clock.
    """
    from advntk_dist.storage import heartbeat, lease

    if isinstance(lock, Path):
        seen = heartbeat.last_seen(lock)
        return None if seen is None else (str(seen[0]), seen[1], heartbeat.is_alive(*seen))
    seen = lease.last_seen(lock)
    return None if seen is None else (str(seen[0]), seen[1], seen[1] < lease.STALE)
