"""One process at a time: a lock of the operating system on a disk, a lease in an object store; signs of life.

A lease is an object that only one process can make, and that says so as long as it is renewed. One that has not been
renewed for ``STALE`` seconds may be taken over. Its age is measured by the store's clock alone, so that clocks of
machines may differ. Who finds a lease waits until it is renewed, and then gives up, or until it is stale: so the same
command goes on after a kill. A holder that finds its lease taken writes nothing more below the place that the lease
guards.

Beside a lock on a disk lies a file that says who holds it, renewed as often: it is read by others, and locks nothing.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from advntk_dist.errors import StoreBusyError, StoreError, StoreUnreachableError
from advntk_dist.storage.durable import write_durable
from advntk_dist.storage.paths import Location, ObjectPath, _lost, refuse_if_lost
from advntk_dist.storage.retry import no_bucket, short_timeout

log = logging.getLogger(__name__)

STALE = 60.0
"""Seconds after which a lease that is not renewed may be taken over."""

RENEW = 15.0
"""Seconds between renewals of a lease, or of the file beside a lock."""

_POLL = 1.0

_held: set[str] = set()
"""Words of the leases that this process holds."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, and a random word that tells two holders of one process apart."""

    host: str
    pid: int
    word: str

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        return cls(socket.gethostname(), os.getpid(), uuid.uuid4().hex)

    def is_gone(self) -> bool:
        """Whether it is this very process, which could not give it back, or none: a lock file copied from a disk."""
        return not self.host or (
            (self.host, self.pid) == (socket.gethostname(), os.getpid()) and self.word not in _held
        )

    def is_of_this_host(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return self.host == socket.gethostname()

    def is_alive_here(self) -> bool:
        """Whether there is such a process on this machine."""
        import psutil

        return self.is_of_this_host() and psutil.pid_exists(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def _renewing(renew: Callable[[], bool], name: str) -> Iterator[threading.Thread]:
    """Call ``renew`` every ``RENEW`` seconds in a thread, which is given, until it says False or the block ends."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(RENEW) and renew():
            pass

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        ended.set()
        thread.join(timeout=10.0)


class Lease:
    """Holds a lease while it is entered.

    Parameters
    ----------
    path
        The object.
    guards
        The folder that only the holder may write.
    busy
        What to say where another process holds it.
    """

    def __init__(self, path: ObjectPath, guards: ObjectPath, busy: str) -> None:
        self.path, self.guards, self.busy = path, str(guards), busy
        self.holder = Holder.here()
        self._beats = 0
        self._version: dict[str, str] = {}
        self._renewals = ExitStack()

    def __enter__(self) -> Lease:
        """Take the lease.

        Raises
        ------
        StoreBusyError
            If another process holds it: one that renews it, or lives on this machine.
        StoreError
            If the store refuses, does not answer, or knows no conditional writes.
        """
        _lost.pop(self.guards, None)
        if not self._write("create"):
            self._take_over()
        _held.add(self.holder.word)
        self._renewals.enter_context(_renewing(self._renew, "advntk-lease"))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give the lease back; one that was lost ends what went well until now with StoreBusyError."""
        _held.discard(self.holder.word)
        self._renewals.close()
        if kind is None:
            refuse_if_lost(self.guards)
        # Where the store is away, the lease is taken over once it is stale.
        with suppress(StoreError), short_timeout():
            found = read_holder(self.path)
            if found is not None and found[0] == self.holder:
                self.path.unlink(missing_ok=True)

    def _write(self, mode: Any) -> bool:
        """Write the lease if the condition holds; whether this process has it now, whatever became of the answer."""
        # Each renewal has other content, as S3 tells versions of an object apart by nothing else.
        self._beats += 1
        content = json.dumps(asdict(self.holder) | {"beat": self._beats}).encode()

        def put(obstore: Any, store: Any) -> Mapping[str, Any] | None:
            try:
                return dict(obstore.put(store, self.path.key, content, mode=mode))
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                return None

        try:
            result = self.path.ask(put)
        except FileNotFoundError:
            if mode == "create":
                raise no_bucket(str(self.path)) from None
            return False  # another process has deleted it
        if result is None:
            found = read_holder(self.path)
            if found is None or found[0] != self.holder:
                return False
            result = found[1]
        self._version = _version(result)
        return True

    def _take_over(self) -> None:
        found, since = read_holder(self.path), time.monotonic()
        if found is None:  # given back a moment ago
            if not self._write("create"):
                raise StoreBusyError(self.busy)
            return
        holder, meta = found
        before, warned = _age(self.path, meta), False
        while not holder.is_gone() and (left := STALE - before - (time.monotonic() - since)) > 0:
            if holder.is_alive_here():
                raise StoreBusyError(f"{self.busy} ({holder})")
            if not warned:
                log.warning("%s: waiting for up to %.0f s to see whether %s is still there", self.path, left, holder)
                warned = True
            time.sleep(min(left, _POLL))
            found = read_holder(self.path)
            if found is None or _version(found[1]) != _version(meta):
                break
        taken = self._write("create" if found is None else _version(meta))
        if not taken:
            raise StoreBusyError(f"{self.busy} ({holder})")
        log.warning("%s: taken over from %s, which has not renewed it", self.path, holder)

    def _renew(self) -> bool:
        """Renew the lease; whether this process may still have it."""
        try:
            with short_timeout(RENEW):
                kept = self._write(dict(self._version))
        except StoreUnreachableError:
            return True  # the store may come back before anyone else has taken over
        except StoreError as error:
            log.warning("%s: not renewed: %s", self.path, error)
            return True
        if not kept:
            _lost[self.guards] = (
                f"{self.guards}: another process has taken over, because this one did not renew its lease in "
                "time; nothing that was committed is lost"
            )
        return kept


def _version(meta: Mapping[str, Any]) -> dict[str, str]:
    """What a conditional write names the object's version by."""
    return {name: value for name in ("e_tag", "version") if (value := meta.get(name)) is not None}


def read_holder(path: ObjectPath) -> tuple[Holder, dict[str, Any]] | None:
    """The holder of a lease, and the metadata of its object; None where it is free."""

    def read(obstore: Any, store: Any) -> tuple[bytes, dict[str, Any]]:
        answer = obstore.get(store, path.key)
        return answer.bytes().to_bytes(), dict(answer.meta)

    try:
        content, meta = path.ask(read)
    except FileNotFoundError:
        return None
    return read_words(content), meta


def read_words(content: bytes) -> Holder:
    """The holder that a lock's content names: none where it is empty, an unknown one where it is damaged."""
    if not content:
        return Holder("", 0, "")
    try:
        words = json.loads(content)
        return Holder(str(words["host"]), int(words["pid"]), str(words["word"]))
    except (ValueError, TypeError, KeyError):
        return Holder("a machine that is not known", 0, "")


def _age(path: ObjectPath, meta: dict[str, Any]) -> float:
    """Seconds since an object was written, by the store's clock: that of a small object written now."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    probe.write_bytes(b"")
    try:
        now = probe.head()
    finally:
        probe.unlink(missing_ok=True)
    return 0.0 if now is None else float((now["last_modified"] - meta["last_modified"]).total_seconds())


@contextmanager
def heartbeat(lock: Path) -> Iterator[threading.Thread]:
    """Say in a file beside a lock, which must be held, who holds it; the thread that renews the file is given.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    beside = _beside(lock)
    write_durable(beside, json.dumps(asdict(Holder.here())).encode())

    def renew() -> bool:
        try:
            os.utime(beside)
        except FileNotFoundError:
            return False  # the folder is gone
        except OSError as error:  # a file server that may come back
            log.warning("%s: not renewed: %s", beside, error)
        return True

    try:
        with _renewing(renew, "advntk-heartbeat") as thread:
            yield thread
    finally:
        beside.unlink(missing_ok=True)


def _beside(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.holder")


def last_seen(lock: Location) -> tuple[Holder, float] | None:
    """Who holds a lock, or died with it, and how many seconds ago that was last seen, by this machine's clock.

    None where it is free: it was given back, or never taken.
    """
    if isinstance(lock, Path):
        try:
            with _beside(lock).open("rb") as file:  # opened, as a network file system may show an older time otherwise
                return read_words(file.read()), max(0.0, time.time() - os.fstat(file.fileno()).st_mtime)
        except FileNotFoundError:
            return None
    found = read_holder(lock)
    if found is None:
        return None
    holder, meta = found
    return holder, max(0.0, (datetime.now(UTC) - meta["last_modified"]).total_seconds())


def holder_of(lock: Location) -> tuple[str, float, bool] | None:
    """:func:`last_seen` with the holder in words, and whether it lives; found without touching the lock."""
    seen = last_seen(lock)
    if seen is None:
        return None
    holder, age = seen
    dead = isinstance(lock, Path) and holder.is_of_this_host() and not holder.is_alive_here()
    return str(holder), age, age < STALE and not dead


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
        assert isinstance(guards, ObjectPath)
        with Lease(lock, guards, busy):
            yield
        return
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        seen = last_seen(lock)
        raise StoreBusyError(busy if seen is None else f"{busy} ({seen[0]})") from error
    try:
        with heartbeat(lock):
            yield
    finally:
        held.release()


@contextmanager
def builder_lock(store: Location) -> Iterator[None]:
    """Hold the lock of the store at ``store``: beside it, so that the store itself can be moved into place whole.

    Raises
    ------
    StoreBusyError
        At once, if another builder holds it.
    """
    store.parent.mkdir(parents=True, exist_ok=True)
    busy = f"{store}: another process is building this store; wait until it ends, or watch it with `advntk gram status`"
    with exclusive_lock(store.with_name(f"{store.name}.lock"), store, busy):
        yield
