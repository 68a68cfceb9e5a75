"""How far a store is: counted from its commit records, so that any terminal can ask at any time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from advntk_dist.gram.commits import CommitLog, CommitRecord
from advntk_dist.gram.watch import read_builder
from advntk_dist.grid import TileGrid
from advntk_dist.storage import durable
from advntk_dist.storage.location import Location


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
        Of the build that is running: workers that are ready, lost since it began, tiles handed out again. None
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
