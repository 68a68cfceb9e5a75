"""Handing tasks to the workers of a pool: replaced when they are lost or hang, more or fewer as the cluster changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from typing import Any, Protocol

import ray

from advntk_dist.distributed.autoscaling import WorkerTarget
from advntk_dist.distributed.pool import ActorPool, Call, Lost, PoolEvent
from advntk_dist.distributed.task_queue import TaskQueue
from advntk_dist.distributed.worker import Failure, WorkerInfo
from advntk_dist.errors import SolverError

STARTUP_SECONDS = 600.0
"""Longest time without any worker that is ready, at the start or after the last one was lost."""

LOSSES = (5, 3)
"""Workers that may be lost without a result between: so many, and so many more for each worker that is wanted."""

MAX_LOSSES_IN_A_ROW = 3
"""Times in a row that one of the workers that have a part of their own may be lost."""

_POLL_SECONDS = 1.0
_RESIZE_SECONDS = 2.0

EventSink = Callable[[dict[str, Any]], None]


class Pool(Protocol):
    """What the scheduler needs of a pool of workers; :class:`~advntk_dist.distributed.pool.ActorPool` is Ray's."""

    @property
    def kinds(self) -> dict[int, bool]:
        """Whether each worker, be it ready or starting, has a GPU."""
        ...

    @property
    def ready(self) -> list[int]:
        """Numbers of the workers that can take tasks."""
        ...

    def start(self, gpu: bool) -> int:
        """Ask for one more worker, with a GPU or without, and return its number."""
        ...

    def submit(self, worker: int, key: Hashable, call: Call) -> None:
        """Give a task to a ready worker."""
        ...

    def poll(self, timeout: float) -> list[PoolEvent]:
        """What is new of which worker, after at most ``timeout`` seconds."""
        ...

    def kill(self, worker: int) -> None:
        """End and forget a worker."""
        ...


def run_tasks(
    queue: TaskQueue,
    pool: Pool,
    call: Callable[[Any, int], Call],
    *,
    target: Callable[[float], WorkerTarget],
    on_event: EventSink = lambda event: None,
    clock: Callable[[], float] = time.monotonic,
    poll_seconds: float = _POLL_SECONDS,
) -> Generator[tuple[Any, Any]]:
    """Have every task of the queue done; each task's key comes with its first result, as they come.

    Whoever ends the iteration early closes the iterator, as by :func:`contextlib.closing`: workers that have tasks then
    are ended, so that none of them answers the next caller.

    Parameters
    ----------
    queue
        The tasks.
    pool
        The workers; brought here to what ``target`` says, and refilled after losses.
    call
        Makes the call of a task from its key and the number of the attempt.
    target
        How many workers there should be now, given the time that one worker would take for the tasks that wait; asked
        again and again, as the cluster may grow, and get its first GPU.
    on_event
        Called with a dict {"event": ..., "worker": ...}: worker_started, worker_ready, worker_lost (with the keys of
        its "tasks"), worker_retired, and task_again where a "task" is handed out once more.
    clock
        Time in seconds, which tests replace.
    poll_seconds
        Time between two looks at the workers.

    Raises
    ------
    AdvNTKError
        What a task or the start of a worker has failed with, or the error of the queue: workers are lost again and
        again without finishing anything, or there has been none for STARTUP_SECONDS.
    """
    manned = resized = clock()  # manned: when a worker was last ready
    wanted, losses = target(0.0), 0  # losses since the last result
    known = set(pool.ready)
    try:
        while not queue.complete:
            now = clock()
            if now - resized > _RESIZE_SECONDS:
                before, wanted, resized = wanted, target(queue.work), now
                if bool(before.cpu) != bool(wanted.cpu):
                    queue.forget_pace()  # that of the other kind
            _bring_to(wanted, pool, queue, on_event)
            kinds = pool.kinds
            for worker in [w for w in pool.ready if wanted.of(kinds[w])]:
                while (given := queue.take(worker, now)) is not None:
                    key, attempt = given
                    if attempt > 1:
                        on_event({"event": "task_again", "task": key, "attempt": attempt, "worker": worker})
                    pool.submit(worker, key, call(key, attempt))
            lost: dict[int, str] = {}
            for worker, key, outcome in pool.poll(poll_seconds):
                if isinstance(outcome, WorkerInfo):
                    known.add(worker)
                    on_event({"event": "worker_ready", "worker": worker, **outcome.as_event()})
                elif isinstance(outcome, Lost):
                    lost[worker] = outcome.reason
                elif isinstance(outcome, Failure):
                    queue.give_up(worker, key)  # the worker itself may go on for the next caller
                    raise outcome.as_error(queue.error)
                else:
                    losses = 0
                    if queue.finish(worker, key, clock()):
                        yield key, outcome
            for worker in queue.overdue(clock()):
                if worker not in lost:  # the pool has forgotten those
                    pool.kill(worker)
                    lost[worker] = f"no result for {queue.deadline:.0f} s"
            for worker, reason in lost.items():
                losses += 1
                _lose(worker, reason, queue, on_event, was_ready=worker in known)
                known.discard(worker)
                if losses > LOSSES[0] + LOSSES[1] * wanted.total:
                    raise queue.error(
                        f"{losses} workers were lost and none finished a {queue.noun} (last: {reason}); "
                        "see whether they run out of memory, then run the same command again"
                    )
            if pool.ready or not wanted.room:  # how long a node is waited for, ``target`` knows
                manned = clock()
            elif clock() - manned > STARTUP_SECONDS:
                raise queue.error(
                    f"no worker was ready within {STARTUP_SECONDS:.0f} s; see whether the cluster has free cores, "
                    "then run the same command again"
                )
    finally:
        for worker in set(queue.busy) & set(pool.kinds):
            pool.kill(worker)


def _bring_to(wanted: WorkerTarget, pool: Pool, queue: TaskQueue, on_event: EventSink) -> None:
    """Start workers that the work that is left can use, and end those that it cannot.

    A worker that is ready is ended only where none of its kind is wanted, and only once it has no task; one that still
    starts, or waits for a node, at once.
    """
    left = queue.total - len(queue.finished)
    for gpu in (True, False):  # first, as it may be their cores that the others need
        mine, ready = [w for w, has in pool.kinds.items() if has == gpu], set(pool.ready)
        useless = [w for w in reversed(mine) if w not in ready][: max(0, len(mine) - wanted.of(gpu))]
        if not wanted.of(gpu):
            useless += [w for w in mine if w in ready and w not in queue.busy]
        for worker in useless:
            pool.kill(worker)
            queue.lose(worker, "no longer wanted")
            on_event({"event": "worker_retired", "worker": worker, "gpu": gpu, "was_ready": worker in ready})
    for gpu in (True, False):
        there = sum(has == gpu for has in pool.kinds.values())
        for _ in range(min(wanted.of(gpu), left) - there):
            on_event({"event": "worker_started", "worker": pool.start(gpu), "gpu": gpu})


def _lose(worker: int, reason: str, queue: TaskQueue, on_event: EventSink, *, was_ready: bool) -> None:
    back = queue.lose(worker, reason)
    on_event({"event": "worker_lost", "worker": worker, "reason": reason, "tasks": back, "was_ready": was_ready})


class WorkerPerPart:
    """One worker for each part of some data, which it keeps; a lost one is replaced by one that loads the same part.

    Parameters
    ----------
    pool
        The workers.
    parts
        Number of parts.
    start
        Starts a worker for the part of a number with :meth:`ActorPool.start_with`, and returns the worker's number.
    on_lost
        Called with the number of a part, why its worker is lost, and whether that had loaded the part.
    loading
        Longest time in seconds for a worker to start and to load its part.
    """

    def __init__(
        self,
        pool: ActorPool,
        parts: int,
        start: Callable[[int], int],
        on_lost: Callable[[int, str, bool], None],
        loading: float,
    ) -> None:
        self._pool, self._start, self._on_lost, self._loading = pool, start, on_lost, loading
        self._worker: dict[int, int] = {}
        self._losses = [0] * parts
        self._questions = 0
        self.infos: dict[int, WorkerInfo] = {}
        """Of each part, where the worker that has it loaded runs."""
        self.replaced = 0
        """Number of workers that were lost and replaced so far."""

    def ask(self, call: Call | None, patience: float) -> list[Any]:
        """What a call gives on every part, in their order; None has the parts loaded and nothing more.

        Parameters
        ----------
        call
            The call, the same for all.
        patience
            Longest time in seconds for a worker that has its part to answer.

        Raises
        ------
        AdvNTKError
            What a worker has failed with.
        SolverError
            If the worker of a part is lost MAX_LOSSES_IN_A_ROW times.
        """
        self._questions += 1  # so that late answers to an earlier question are not taken for answers to this one
        answers: dict[int, Any] = {}
        deadlines: dict[int, float] = {}

        def submit(part: int) -> None:
            if call is None:
                answers[part] = None
                deadlines.pop(part, None)
            else:
                self._pool.submit(self._worker[part], self._questions, call)
                deadlines[part] = time.monotonic() + patience

        def begin(part: int) -> None:
            if part in self.infos:
                submit(part)
                return
            if part not in self._worker:
                self._worker[part] = self._start(part)
            deadlines[part] = time.monotonic() + self._loading

        def lose(part: int, reason: str) -> None:
            self._lose(part, reason)
            begin(part)

        for part in range(len(self._losses)):
            begin(part)
        while deadlines:
            patient = min(_POLL_SECONDS, max(0.0, min(deadlines.values()) - time.monotonic()))
            part_of = {worker: part for part, worker in self._worker.items()}
            for worker, key, outcome in self._pool.poll(patient):
                part = part_of[worker]
                if isinstance(outcome, WorkerInfo):
                    self.infos[part] = outcome
                    submit(part)
                elif isinstance(outcome, Lost):
                    lose(part, outcome.reason)
                elif isinstance(outcome, Failure):
                    raise outcome.as_error(SolverError)
                elif key == self._questions:
                    answers[part], self._losses[part] = outcome, 0
                    del deadlines[part]
            for part in [part for part, deadline in deadlines.items() if deadline <= time.monotonic()]:
                self._pool.kill(self._worker[part])
                lose(part, "it did not answer in time")
        return [answers[part] for part in range(len(self._losses))]

    def _lose(self, part: int, reason: str) -> None:
        del self._worker[part]
        was_loaded = self.infos.pop(part, None) is not None
        self._losses[part] += 1
        self.replaced += 1
        if self._losses[part] >= MAX_LOSSES_IN_A_ROW:
            raise SolverError(
                f"the worker of part {part + 1} of {len(self._losses)} was lost {MAX_LOSSES_IN_A_ROW} times in a row, "
                f"at last with: {reason}; check the memory and the state of the nodes with `ray status`, or use "
                "another solver.operator"
            )
        self._on_lost(part, reason, was_loaded)


def results_in_order(references: Sequence[Any], patience: float) -> Iterator[Any]:
    """The results of tasks that Ray runs already, in their order; each is freed in Ray once it is taken.

    Raises
    ------
    TimeoutError
        If the next one is not there after ``patience`` seconds; the tasks that are left are cancelled.
    ray.exceptions.RayError
        If a task fails, or its worker is lost for good.
    """
    waiting = list(reversed(references))
    while waiting:
        reference = waiting.pop()
        done, _ = ray.wait([reference], timeout=patience)
        if not done:
            late = [reference, *waiting]
            for running in ray.wait(late, num_returns=len(late), timeout=0)[1]:  # Ray aborts for an ended one
                ray.cancel(running, force=True)
            raise TimeoutError
        yield ray.get(reference)
