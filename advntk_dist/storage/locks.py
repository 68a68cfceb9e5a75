"""One process at a time: a lock of the operating system on a disk, a lease in an object store; signs of life."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from advntk_dist.errors import StoreBusyError
from advntk_dist.storage.durable import write_durable
from advntk_dist.storage.lease import RENEW, STALE, Holder, read_words
from advntk_dist.storage.paths import Location


@contextmanager
def exclusive_lock(lock: Location, guards: Location, busy: str) -> Iterator[None]:
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
        from advntk_dist.storage.paths import ObjectPath

        assert isinstance(guards, ObjectPath)
        with Lease(lock, guards, busy):
            yield
        return
    from advntk_dist.storage.locks import Heartbeat, last_seen

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

    None where it is free: it was given back, or never taken. Found without touching it, by this machine's clock.
    """
    from advntk_dist.storage import lease

    if isinstance(lock, Path):
        seen = last_seen(lock)
        return None if seen is None else (str(seen[0]), seen[1], is_alive(*seen))
    seen = lease.last_seen(lock)
    return None if seen is None else (str(seen[0]), seen[1], seen[1] < lease.STALE)


log = logging.getLogger(__name__)


class Heartbeat:
    """Says who holds a lock while it is entered; the lock must be held.

    Parameters
    ----------
    lock
        The file of the lock.
    """

    def __init__(self, lock: Path) -> None:
        self.path = _beside(lock)
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="advntk-heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        """Write the file.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        write_durable(self.path, json.dumps(asdict(Holder.here())).encode())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file: the lock is free."""
        self._released.set()
        self._thread.join(timeout=10.0)
        self.path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._released.wait(RENEW):
            try:
                os.utime(self.path)
            except FileNotFoundError:
                return  # the folder is gone
            except OSError as error:  # a file server that may come back
                log.warning("%s: not renewed: %s", self.path, error)


def last_seen(lock: Path) -> tuple[Holder, float] | None:
    """Who holds a lock, or died with it, and how many seconds ago that was last seen, by this machine's clock.

    None where it is free: it was given back, or never taken.
    """
    try:
        with _beside(lock).open("rb") as file:  # opened, as a network file system may show an older time otherwise
            return read_words(file.read()), max(0.0, time.time() - os.fstat(file.fileno()).st_mtime)
    except FileNotFoundError:
        return None


def is_alive(holder: Holder, age: float) -> bool:
    """Whether a holder that was seen so many seconds ago is still there."""
    return age < STALE and (not holder.is_of_this_host() or holder.is_alive_here())


def _beside(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.holder")


def lock_path(store: Location) -> Location:
    """Where the lock of a store lies: beside it, so that the store itself can be moved into place whole."""
    return store.with_name(store.name + ".lock")


@contextmanager
def builder_lock(store: Location) -> Iterator[None]:
    """Hold the lock of the store at ``store``.

    Raises
    ------
    StoreBusyError
        At once, if another builder holds it.
    """
    store.parent.mkdir(parents=True, exist_ok=True)
    busy = f"{store}: another process is building this store; wait until it ends, or watch it with `advntk gram status`"
    with exclusive_lock(lock_path(store), store, busy):
        yield
