"""How far a store is, counted from its commit records, and the state that a running build publishes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from advntk_dist import metrics
from advntk_dist.errors import StoreError
from advntk_dist.gram.commits import CommitLog, CommitRecord
from advntk_dist.grid import TileGrid
from advntk_dist.storage import durable
from advntk_dist.storage.paths import Location
from advntk_dist.storage.retry import short_timeout


@dataclass(frozen=True)
class GramStatus:
    """Progress of a store.

    Attributes
    ----------
    done, total
        Tiles committed, and tiles there will be, over all kinds.
    damaged
        Commit records whose bytes are damaged; their tiles count as not done.
    bytes
        Bytes of the committed chunks.
    compute_seconds
        Worker time spent on the committed tiles.
    rate
        Tiles a second: of the running build, or between the first and the last commit; None before there are any.
    workers, workers_lost, retries
        Workers of the running build that are ready, workers lost since it began, and tiles handed out again. None
        while no build is running.
    """

    done: int
    total: int
    damaged: int
    bytes: int
    compute_seconds: float
    rate: float | None
    workers: int | None = None
    workers_lost: int | None = None
    retries: int | None = None

    @property
    def complete(self) -> bool:
        """Whether every tile is committed."""
        return self.done == self.total

    @property
    def seconds_left(self) -> float | None:
        """Time left at the rate so far; None while there is no rate."""
        return (self.total - self.done) / self.rate if self.rate else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ``seconds_left`` among them."""
        return asdict(self) | {"seconds_left": self.seconds_left}

    def __str__(self) -> str:
        text = f"{self.done} of {self.total} tiles, {self.bytes / 2**30:.3g} GiB"
        if self.damaged:
            text += f", {self.damaged} damaged commit records"
        if self.workers is None:
            return text if self.complete else f"{text}; no build is running"
        pace = "no tile yet" if self.rate is None else f"{self.rate:.3g} tiles/s, {self.seconds_left:.0f} s left"
        workers = f"{self.workers} workers, {self.workers_lost} lost, {self.retries} tiles handed out again"
        return f"{text}, {pace}; {workers}"


def read_status(path: Location, grid: TileGrid, commits: Mapping[str, CommitLog]) -> GramStatus:
    """Read every commit record of the store at ``path`` once; ``commits`` has a log for each kind."""
    records, damaged = [], 0
    for log in commits.values():

        def read(i: int, j: int, log: CommitLog = log) -> CommitRecord | durable.ChunkDamagedError | None:
            try:
                return log.read(i, j)
            except durable.ChunkDamagedError as error:
                return error

        found = log.each(read, [(t.i, t.j) for t in grid])
        damaged += sum(isinstance(record, durable.ChunkDamagedError) for record in found)
        records += [record for record in found if isinstance(record, CommitRecord)]
    builder = read_builder(path)
    times = [r.unix_ms for r in records]
    span = (max(times) - min(times)) / 1e3 if times else 0.0
    return GramStatus(
        done=len(records),
        total=len(grid) * len(commits),
        damaged=damaged,
        bytes=sum(r.bytes for r in records),
        compute_seconds=sum(r.compute_us for r in records) / 1e6,
        rate=builder.rate if builder else ((len(records) - 1) / span if span else None),
        workers=builder.workers if builder else None,
        workers_lost=builder.workers_lost if builder else None,
        retries=builder.retries if builder else None,
    )


_WRITE_SECONDS = 1.0
_PUT_SECONDS = 5.0
"""Between writes of the file; in an object store each one is a request."""

_STALE_SECONDS = 60.0
"""A builder on another machine that has not written for this long counts as gone."""

GAUGES = {
    "done": "Tiles committed",
    "total": "Tiles there will be",
    "workers": "Workers that are ready",
    "workers_lost": "Workers lost since the build started",
    "retries": "Tiles handed out again",
}
"""Fields of :class:`Builder` that are Ray metrics of the build of each store."""


@dataclass
class Builder:
    """The state of a build. ``retries`` counts tiles handed out again, for whatever reason."""

    pid: int
    host: str
    started_unix: float
    updated_unix: float
    done: int
    total: int
    computed: int = 0
    workers: int = 0
    workers_lost: int = 0
    retries: int = 0

    @property
    def rate(self) -> float | None:
        """Tiles a second since the build started."""
        span = self.updated_unix - self.started_unix
        return self.computed / span if self.computed and span > 0 else None


def watch_path(store: Location) -> Location:
    """The file in which a running build publishes its state, beside the store."""
    return store.with_name(store.name + ".build.json")


class BuildWatch:
    """Keeps the state of a build up to date, in its file and in Ray's metrics; removes the file at the end."""

    def __init__(self, store: Location, done: int, total: int) -> None:
        from ray.util.metrics import Gauge  # readers of the file do without Ray

        now = time.time()
        self._path = watch_path(store)
        self.builder = Builder(os.getpid(), socket.gethostname(), now, now, done, total)
        self._written = 0.0
        self._gauges = {
            field: Gauge(f"advntk_gram_{field}", description=text, tag_keys=("store",))
            for field, text in GAUGES.items()
        }
        self._tags = {"store": str(store)}

    def __enter__(self) -> BuildWatch:
        self.publish(force=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.publish(force=True)
        with contextlib.suppress(StoreError), short_timeout():
            self._path.unlink(missing_ok=True)

    def event(self, event: dict[str, Any]) -> None:
        """Count an event of the scheduler."""
        name = event["event"]
        if name == "worker_ready":
            self.builder.workers += 1
        elif name == "worker_lost":
            self.builder.workers_lost += 1
            self.builder.workers = max(0, self.builder.workers - bool(event["was_ready"]))
        elif name == "worker_retired":
            self.builder.workers = max(0, self.builder.workers - bool(event["was_ready"]))
        elif name == "tile_again":
            self.builder.retries += 1
            metrics.count("advntk_retries")
        self.publish(force=name != "tile_again")

    def tile(self, done: int) -> None:
        """Note that one more tile is committed."""
        self.builder.done = done
        self.builder.computed += 1
        self.publish()

    def publish(self, *, force: bool = False) -> None:
        """Write file and metrics, at most once a second unless forced; an object at most every five seconds."""
        now = time.time()
        if not force and now - self._written < (_WRITE_SECONDS if isinstance(self._path, Path) else _PUT_SECONDS):
            return
        self._written = self.builder.updated_unix = now
        text = json.dumps(asdict(self.builder))
        # A build goes on when this file cannot be written: on a full disk, writing the next tile raises the error.
        with contextlib.suppress(OSError, StoreError), short_timeout():
            durable.write_durable(self._path, text.encode())
        for field, gauge in self._gauges.items():
            gauge.set(float(getattr(self.builder, field)), tags=self._tags)


def read_builder(store: Location) -> Builder | None:
    """The build that is running on a store; None if there is none, or its process is gone."""
    try:
        builder = Builder(**json.loads(watch_path(store).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    if builder.host == socket.gethostname():
        import psutil

        return builder if psutil.pid_exists(builder.pid) else None
    return builder if time.time() - builder.updated_unix < _STALE_SECONDS else None
