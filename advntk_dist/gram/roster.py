"""The workers of a build by kind: brought to the numbers that are wanted, and let go where others have come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from advntk_dist.gram.ledger import TileLedger
from advntk_dist.gram.staff import Staff

EventSink = Callable[[dict[str, Any]], None]


class Pool(Protocol):
    """What the loop needs of a pool of workers; :class:`advntk_dist.gram.pool.WorkerPool` is the Ray one."""

    @property
    def ready(self) -> list[int]:
        """Numbers of the workers that can take tiles."""
        ...

    def start(self, gpu: bool) -> int:
        """Ask for one more worker, with a GPU or without, and return its number."""
        ...

    def submit(self, worker: int, i: int, j: int, attempt: int) -> None:
        """Hand a tile to a ready worker."""
        ...

    def poll(self, timeout: float) -> list[tuple[int, Any]]:
        """What is new of which worker, waiting for at most ``timeout`` seconds."""
        ...

    def kill(self, worker: int) -> None:
        """Kill and forget a worker."""
        ...


class Roster:
    """Who of a pool has a GPU, and who may take tiles.

    Parameters
    ----------
    pool, ledger
        The workers and the tiles.
    on_event
        Called with {"event": "worker_started" or "worker_retired", "worker": ..., "gpu": ...}.
    """

    def __init__(self, pool: Pool, ledger: TileLedger, on_event: EventSink) -> None:
        self._pool, self._ledger, self._on_event = pool, ledger, on_event
        self._gpu: dict[int, bool] = {}
        self._staff: Staff | None = None

    def bring_to(self, staff: Staff) -> None:
        """Start whom the work that is left can use, and let go whom it has no more use for.

        A worker that is ready is let go only where none of its kind is wanted, and only once it has no tile; one that
        still starts, or waits for a node, at once.
        """
        if self._staff is not None and bool(staff.cpu) != bool(self._staff.cpu):
            self._ledger.forget_pace()  # that of the other kind
        self._staff = staff
        left = self._ledger.total - len(self._ledger.finished)
        ready = set(self._pool.ready)
        for gpu in (True, False):  # first, as it may be their cores that the others need
            mine, wanted = self._of(gpu), staff.of(gpu)
            useless = [w for w in reversed(mine) if w not in ready][: max(0, len(mine) - wanted)]
            if not wanted:
                useless += [w for w in mine if w in ready and not self._ledger.holds(w)]
            for worker in useless:
                self._retire(worker, worker in ready)
        for gpu in (True, False):
            for _ in range(min(staff.of(gpu), left) - len(self._of(gpu))):
                worker = self._pool.start(gpu)
                self._gpu[worker] = gpu
                self._on_event({"event": "worker_started", "worker": worker, "gpu": gpu})

    @property
    def takers(self) -> list[int]:
        """Workers that are ready and of a kind that is wanted."""
        return [w for w in self._pool.ready if self._staff is not None and self._staff.of(self._gpu[w])]

    def drop(self, worker: int) -> None:
        """Forget a worker that is lost."""
        self._gpu.pop(worker, None)

    def _of(self, gpu: bool) -> list[int]:
        return [worker for worker, has in self._gpu.items() if has == gpu]

    def _retire(self, worker: int, was_ready: bool) -> None:
        self._pool.kill(worker)
        self._ledger.lose(worker, "no longer wanted")
        event = {"event": "worker_retired", "worker": worker, "gpu": self._gpu.pop(worker), "was_ready": was_ready}
        self._on_event(event)
