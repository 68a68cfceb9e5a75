"""Batches spread over Ray actors: started when first needed, replaced when they are lost or hang."""

from __future__ import annotations

import contextlib
import statistics
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import ray
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import Images
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.errors import EvaluationError, RequestError
from advntk_dist.evaluation.crew import Crew, EvaluationActor
from advntk_dist.evaluation.evaluator import Array, Batch
from advntk_dist.evaluation.worker import Failure, Ready
from advntk_dist.gram.cluster import ray_session
from advntk_dist.gram.staff import Staffing
from advntk_dist.networks import Network

LOSSES = (5, 3)
"""Workers that may be lost without a result between: so many, and so many more for each worker."""

STARTUP_SECONDS = 600.0
"""Longest time without any worker that is ready, at the start or after the last one was lost."""

_RESIZE_SECONDS = 2.0

EventSink = Callable[[dict[str, Any]], None]


class EvaluationPool:
    """Actors that hold the prepared training images, for all evaluations of a run; a context manager.

    Nothing is started before the first batch.

    Parameters
    ----------
    net, x_train
        Network and training images (n, H, W, C): uint8, or floats in [-0.5, 0.5].
    batch
        Images that go through a worker at once.
    workers
        Actors; by default as for :func:`advntk_dist.gram.build.build_gram`.
    address
        Address of a Ray cluster; by default the Ray that is already in use, or a new one on this machine.
    on_event
        Called with a dict {"event": name, ...} for workers started, ready and lost.
    patience
        Seconds without an answer to a ping after which a worker counts as hung and is replaced.
    limit
        Seconds that one batch may take.

    Raises
    ------
    RequestError
        If ``workers`` is below 1.
    """

    def __init__(
        self,
        net: Network,
        x_train: ArrayLike,
        batch: int,
        *,
        workers: int | None = None,
        address: str | None = None,
        on_event: EventSink = lambda event: None,
        patience: float = 120.0,
        limit: float = 6 * 3600.0,
    ) -> None:
        if workers is not None and workers < 1:
            raise RequestError(f"evaluation.workers is {workers}; it must be at least 1")
        self._net, self._x, self._batch = net, to_unit_range(np.asarray(x_train)), batch
        self._workers, self._address, self._on_event = workers, address, on_event
        self._cleanup = contextlib.ExitStack()
        self._arguments: tuple[Any, ...] | None = None
        self._crew, self._losses = Crew(patience, limit), 0
        self._staffing = Staffing(workers, grows=address is not None or ray.is_initialized(), error=EvaluationError)
        self._seconds: deque[float] = deque(maxlen=10)  # that the last batches took

    def __enter__(self) -> EvaluationPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def release(self) -> None:
        """Kill the actors, so that others have their cores; the next batch starts them again."""
        for member in list(self._crew.members):
            self._crew.kill(member)

    def close(self) -> None:
        """Kill the actors, and stop Ray if it was started here."""
        self.release()
        self._arguments = None
        self._cleanup.close()

    def evaluator(self, coefficients: Callable[[], ArrayLike], x: Images, y: NDArray[np.int64]) -> SpreadEvaluator:
        """Judges images x (m, H, W, C) with labels y under coefficients (n, k), which are asked for if needed."""
        return SpreadEvaluator(self, coefficients, x, y)

    def judge(self, batches: Iterable[Batch], call: Callable[[Any, Batch], Any]) -> Iterator[tuple[Batch, Array]]:
        """Each batch with its rows, as they come; ``call`` hands a batch to an actor and returns its reference.

        Raises
        ------
        EvaluationError
            If a batch or the start of a worker fails, workers are lost again and again, there has been none for
            STARTUP_SECONDS, or no node for it to run on for :data:`advntk_dist.gram.staff.NODE_SECONDS`.
        """
        todo = deque(batches)
        if not todo:
            return
        arguments = self._connect()
        staff = self._staffing.now(0.0)
        staffed = resized = time.monotonic()  # staffed: when a worker was last ready
        try:
            while True:
                if time.monotonic() - resized > _RESIZE_SECONDS:  # a node may have joined
                    work = len(todo) * statistics.median(self._seconds) if self._seconds else 0.0
                    staff, resized = self._staffing.now(work), time.monotonic()
                for event in self._crew.bring_to(staff, len(todo) + len(self._crew.busy), arguments):
                    self._on_event(event)
                for member in [m for m in self._crew.free if staff.of(m.gpu)][: len(todo)]:
                    member.batch, member.since = todo.popleft(), time.monotonic()
                    member.asked = call(member.actor, member.batch)
                if not todo and not self._crew.busy:
                    return
                for member, outcome in self._crew.poll():
                    if isinstance(outcome, Ready):
                        member.info = outcome
                        self._on_event({"event": "evaluator_ready", "worker": member.number, **asdict(outcome)})
                    elif isinstance(outcome, Failure):
                        member.batch = None  # it has answered, and may go on for the next caller
                        raise EvaluationError(outcome.message)
                    elif isinstance(outcome, str):
                        self._lose(member, outcome, staff.total)
                        if member.batch is not None:
                            todo.appendleft(member.batch)
                    else:
                        self._losses, done, member.batch = 0, member.batch, None
                        self._seconds.append(time.monotonic() - member.since)
                        assert done is not None
                        yield done, outcome
                if any(m.info for m in self._crew.members) or not staff.room:
                    staffed = time.monotonic()
                elif time.monotonic() - staffed > STARTUP_SECONDS:
                    raise EvaluationError(
                        f"no worker was ready within {STARTUP_SECONDS:.0f} s; see whether the cluster has free cores, "
                        "then run the same command again"
                    )
        finally:
            # What is still under way belongs to a caller who has gone: its worker would answer the next one.
            for member in self._crew.busy:
                self._crew.kill(member)

    def _connect(self) -> tuple[Any, ...]:
        if self._arguments is None:
            self._cleanup.enter_context(ray_session(self._address, image_bytes=self._x.nbytes))
            self._arguments = (self._net.spec, ray.put(self._x), self._batch)
        return self._arguments

    def _lose(self, member: EvaluationActor, reason: str, wanted: int) -> None:
        self._crew.kill(member)
        self._losses += 1
        again = [int(member.batch.indices.min()), int(member.batch.indices.max())] if member.batch else []
        self._on_event({"event": "evaluator_lost", "worker": member.number, "reason": reason, "images": again})
        if self._losses > LOSSES[0] + LOSSES[1] * wanted:
            raise EvaluationError(
                f"{self._losses} workers were lost and none finished a batch (last: {reason}); "
                "see whether they run out of memory, then run the same command again"
            )


class SpreadEvaluator:
    """The evaluator of one set of coefficients and images on a pool; made by :meth:`EvaluationPool.evaluator`."""

    def __init__(
        self, pool: EvaluationPool, coefficients: Callable[[], ArrayLike], x: Images, y: NDArray[np.int64]
    ) -> None:
        self._pool, self._make, self.x, self.y = pool, coefficients, x, y
        self._subject, self._reference = uuid.uuid4().hex, cast(Any, None)

    def map(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Array]]:
        """Each batch with its rows, as they come; errors as :meth:`EvaluationPool.judge`."""
        return self._pool.judge(batches, self._call)

    def _call(self, actor: Any, batch: Batch) -> Any:
        if self._reference is None:
            self._reference = ray.put(np.asarray(self._make(), dtype=np.float64))
        i = batch.indices
        return actor.judge.remote(self._subject, self._reference, self.x[i], self.y[i], i, batch.task)
