"""The loop of a build: hand out tiles, take receipts, replace workers that are lost or hang."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

from advntk_dist.errors import GramBuildError, StoreUnreachableError
from advntk_dist.gram.ledger import TileLedger
from advntk_dist.gram.roster import EventSink, Pool, Roster
from advntk_dist.gram.staff import Staff
from advntk_dist.gram.worker import Failure, Receipt, WorkerInfo

DEPTH = 2
"""Tiles a worker has at once: one is computed while the one before is written."""

STARTUP_SECONDS = 600.0
"""Longest time without any worker that is ready, at the start or after the last one was lost."""

_POLL_SECONDS = 1.0
_RESIZE_SECONDS = 2.0


def run_tiles(
    ledger: TileLedger,
    pool: Pool,
    *,
    target: Callable[[float], Staff],
    on_receipt: Callable[[Receipt], None],
    on_event: EventSink,
    clock: Callable[[], float] = time.monotonic,
    poll_seconds: float = _POLL_SECONDS,
) -> None:
    """Have every tile of the ledger computed.

    Parameters
    ----------
    ledger
        The tiles.
    pool
        The workers; brought here to what ``target`` says, and refilled after losses.
    target
        Who should work now, given the seconds that one worker would take for the tiles that wait; asked again and
        again, as the cluster may grow during a build, and get its first GPU.
    on_receipt
        Called for the first receipt of each tile.
    on_event
        Called with a dict {"event": ..., ...} when workers come, go or hang, and tiles are handed out again.
    clock, poll_seconds
        For tests.

    Raises
    ------
    GramBuildError
        If a tile cannot be computed, workers are lost again and again without finishing anything, or there has been
        none for STARTUP_SECONDS on a cluster that has room for one; and what ``target`` raises.
    StoreUnreachableError
        If an object store does not answer a worker for longer than it is waited for.
    """
    staffed = resized = clock()  # staffed: when a worker was last ready
    staff, roster = target(0.0), Roster(pool, ledger, on_event)
    known: set[int] = set()
    losses = 0  # since the last receipt
    while not ledger.complete:
        now = clock()
        if now - resized > _RESIZE_SECONDS:
            staff, resized = target(ledger.work), now
        roster.bring_to(staff)
        for worker in roster.takers:
            while (given := ledger.take(worker, now, DEPTH)) is not None:
                (i, j), attempt = given
                if attempt > 1:
                    on_event({"event": "tile_again", "tile": [i, j], "attempt": attempt, "worker": worker})
                pool.submit(worker, i, j, attempt)
        lost: dict[int, str] = {}
        for worker, outcome in pool.poll(poll_seconds):
            if isinstance(outcome, WorkerInfo):
                known.add(worker)
                on_event({"event": "worker_ready", "worker": worker, **asdict(outcome)})
            elif isinstance(outcome, Receipt):
                losses = 0
                if ledger.finish(worker, (outcome.i, outcome.j), clock()):
                    on_receipt(outcome)
            elif isinstance(outcome, Failure):
                raise (StoreUnreachableError if outcome.unreachable else GramBuildError)(outcome.message)
            else:
                lost[worker] = outcome.reason
        for worker in ledger.overdue(clock()):
            if worker not in lost:  # the pool has forgotten those
                pool.kill(worker)
                lost[worker] = f"no result for {ledger.deadline:.0f} s"
        for worker, reason in lost.items():
            back = [list(p) for p in ledger.lose(worker, reason)]
            on_event(
                {
                    "event": "worker_lost",
                    "worker": worker,
                    "reason": reason,
                    "tiles": back,
                    "was_ready": worker in known,
                }
            )
            known.discard(worker)
            roster.drop(worker)
            losses += 1
            if losses > 5 + 3 * staff.total:
                raise GramBuildError(
                    f"{losses} workers were lost and none finished a tile (last: {reason}); "
                    "see whether they run out of memory, then run the same command again"
                )
        if pool.ready or not staff.room:  # for a node somebody else waits
            staffed = clock()
        elif clock() - staffed > STARTUP_SECONDS:
            raise GramBuildError(
                f"no worker was ready within {STARTUP_SECONDS:.0f} s; see whether the cluster has free cores, then run "
                "the same command again"
            )
