"""Which tasks are waiting, which worker has the others, and when a worker has been silent for too long.

Pure bookkeeping, without Ray and without a clock of its own.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from advntk_dist.errors import AdvNTKError

MAX_ATTEMPTS = 10
"""Times that one task is handed out because workers that had it were lost."""

STRAGGLER = 3.0
"""A task that has taken this many times the median may be given to an idle worker as well."""


@dataclass
class _Held:
    """What one worker has: tasks with the time at which each was handed over, and when it last finished one."""

    tasks: dict[Hashable, float] = field(default_factory=dict)
    since: float = 0.0


class TaskQueue:
    """The tasks of a job; times are in seconds, of any clock.

    Parameters
    ----------
    keys
        Keys of the tasks, in the order in which they are handed out.
    noun
        What messages call a task, as "tile".
    error
        Raised where a task has been lost MAX_ATTEMPTS times.
    depth
        Tasks that a worker has at once while there are plenty.
    duplicates
        Whether a late task may be given to a second worker; only for tasks that two workers may do at once.
    deadline
        Time without a result after which a worker that has tasks counts as hung; None for ten minutes at first, and
        then thirty times the median time of a task, at least one minute.
    grace
        Time that is added to these.
    """

    def __init__(
        self,
        keys: Iterable[Hashable],
        noun: str,
        error: type[AdvNTKError],
        *,
        depth: int = 1,
        duplicates: bool = False,
        deadline: float | None = None,
        grace: float = 0.0,
    ) -> None:
        self.pending = deque(keys)
        self.total = len(self.pending)
        self.noun, self.error = noun, error
        self.finished: set[Hashable] = set()
        self.attempts: dict[Hashable, int] = {}
        self.held: dict[int, _Held] = {}
        self.seconds: list[float] = []
        self._depth, self._duplicates, self._deadline, self._grace = depth, duplicates, deadline, grace

    @property
    def complete(self) -> bool:
        """Whether every task is finished."""
        return len(self.finished) == self.total

    @property
    def deadline(self) -> float:
        """Time of silence that makes a worker count as hung."""
        if self._deadline is not None:
            return self._deadline
        own = max(60.0, 30 * statistics.median(self.seconds)) if self.seconds else 600.0
        return own + self._grace

    @property
    def work(self) -> float:
        """Time that one worker would take for the tasks that are waiting; 0 until some are finished."""
        return len(self.pending) * statistics.median(self.seconds) if self.seconds else 0.0

    @property
    def busy(self) -> list[int]:
        """Workers that have tasks."""
        return [worker for worker, held in self.held.items() if held.tasks]

    def forget_pace(self) -> None:
        """Forget how long tasks took: from now on other workers do them, which may be far slower."""
        self.seconds.clear()

    def take(self, worker: int, now: float) -> tuple[Hashable, int] | None:
        """A task for ``worker`` and the number of this attempt, or None if it has enough or nothing is left.

        A worker holds up to ``depth`` tasks while there are plenty, one at the end. When none is waiting, an idle
        worker gets a copy of the task that has been out the longest, if that is long for a task.
        """
        held = self.held.setdefault(worker, _Held())
        plenty = len(self.pending) >= len(self.held)
        if len(held.tasks) >= (self._depth if plenty else 1):
            return None
        key = self.pending.popleft() if self.pending else self._straggler(worker, now)
        if key is None:
            return None
        if not held.tasks:
            held.since = now
        held.tasks[key] = now
        self.attempts[key] = self.attempts.get(key, 0) + 1
        return key, self.attempts[key]

    def _straggler(self, worker: int, now: float) -> Hashable | None:
        if not self._duplicates or len(self.seconds) < 3 or self.held[worker].tasks:
            return None
        slow = max(STRAGGLER * statistics.median(self.seconds), 1.0)
        out = [(handed, k) for held in self.held.values() for k, handed in held.tasks.items() if k not in self.finished]
        copies = [key for _, key in out]
        late = [(handed, key) for handed, key in out if now - handed > slow and copies.count(key) == 1]
        return min(late, key=lambda pair: pair[0])[1] if late else None

    def finish(self, worker: int, key: Hashable, now: float) -> bool:
        """Note a result; False if another worker had finished the same task before."""
        held = self.held[worker]
        handed = held.tasks.pop(key)
        self.seconds.append(now - max(handed, held.since))
        held.since = now
        if key in self.finished:
            return False
        self.finished.add(key)
        return True

    def give_up(self, worker: int, key: Hashable) -> None:
        """Note that a task has failed for good; a key that the worker does not have is passed over."""
        self.held.get(worker, _Held()).tasks.pop(key, None)

    def lose(self, worker: int, reason: str) -> list[Hashable]:
        """Take the tasks of a lost worker back, which are the next to be handed out, and return their keys.

        Raises
        ------
        AdvNTKError
            Of the class of the queue, if one of them has been lost MAX_ATTEMPTS times.
        """
        held = self.held.pop(worker, _Held())
        elsewhere = {key for other in self.held.values() for key in other.tasks}
        back = [key for key in held.tasks if key not in self.finished and key not in elsewhere]
        for key in back:
            if self.attempts[key] >= MAX_ATTEMPTS:
                raise self.error(
                    f"{self.noun} {key}: {MAX_ATTEMPTS} workers were lost while they had it (last: {reason}); "
                    "see whether workers run out of memory, then run the same command again"
                )
        self.pending.extendleft(reversed(back))
        return back

    def overdue(self, now: float) -> list[int]:
        """Workers that have tasks and have been silent past the deadline."""
        limit = self.deadline
        return [worker for worker, held in self.held.items() if held.tasks and now - held.since > limit]
