"""Who holds a lock on a disk: a file beside it, renewed as long as the lock is held.

A lock of the operating system does not tell other machines of a shared file system who holds it, or whether. This file
does: it names host and process, and its age says whether they are still there.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path

from advntk_dist.storage.durable import write_durable
from advntk_dist.storage.lease import RENEW, STALE, Holder, read_words

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
        """Remove the file: nobody holds the lock any more."""
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

    None where nobody does: it was given back, or never taken.
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
