"""Batches spread over Ray actors: started when first needed, replaced when they are lost or hang."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
from numpy.typing import ArrayLike, NDArray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from advntk_dist.attacks.base import Images
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.errors import RequestError
from advntk_dist.evaluation.evaluator import Array, Batch, EvaluationError
from advntk_dist.evaluation.worker import EvaluationWorker, Failure, Ready
from advntk_dist.gram.cluster import cluster_workers, ray_session
from advntk_dist.gram.pool import LOST
from advntk_dist.gram.worker import worker_environment
from advntk_dist.networks import Network

LOSSES = (5, 3)
"""Workers that may be lost without a result between: so many, and so many more for each worker."""

STARTUP_SECONDS = 600.0
"""Time in which a first worker must be ready."""

EventSink = Callable[[dict[str, Any]], None]


@dataclass
class _Member:
    """An actor, what it is asked for, and since when."""

    number: int
    actor: Any
    asked: Any
    since: float
    info: Ready | None = None
    batch: Batch | None = None
    ping: Any = None
    pinged: float = 0.0


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
        Actors; by default one a GPU of the cluster, or one a CPU core where it has none.
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
        self._patience, self._limit = patience, limit
        self._cleanup = contextlib.ExitStack()
        self._arguments: tuple[Any, ...] | None = None
        self._members: list[_Member] = []
        self._started = self._losses = 0

    def __enter__(self) -> EvaluationPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def release(self) -> None:
        """Kill the actors, so that others have their cores; the next batch starts them again."""
        for member in list(self._members):
            self._kill(member)

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
            If a batch or the start of a worker fails, or workers are lost again and again.
        """
        todo = deque(batches)
        if not todo:
            return
        self._connect()
        gpus, cpus = cluster_workers()
        wanted, begun = min(self._workers or gpus or cpus or 1, len(todo)), time.monotonic()
        try:
            while True:
                for member in [m for m in self._members if m.info is not None and m.batch is None][: len(todo)]:
                    member.batch, member.since = todo.popleft(), time.monotonic()
                    member.asked = call(member.actor, member.batch)
                busy = sum(m.batch is not None for m in self._members)
                if not todo and not busy:
                    return
                while len(self._members) < min(wanted, len(todo) + busy):
                    self._start(1 if gpus else 0)
                for member, outcome in self._poll():
                    if isinstance(outcome, Ready):
                        member.info = outcome
                        self._on_event({"event": "evaluator_ready", "worker": member.number, **asdict(outcome)})
                    elif isinstance(outcome, Failure):
                        raise EvaluationError(outcome.message)
                    elif isinstance(outcome, str):
                        self._lose(member, outcome, wanted)
                        if member.batch is not None:
                            todo.appendleft(member.batch)
                    else:
                        self._losses, done, member.batch = 0, member.batch, None
                        assert done is not None
                        yield done, outcome
                if not any(m.info for m in self._members) and time.monotonic() - begun > STARTUP_SECONDS:
                    raise EvaluationError(
                        f"no worker was ready within {STARTUP_SECONDS:.0f} s; see whether the cluster has free cores"
                    )
        finally:
            # What is still under way belongs to a caller who has gone: its worker would answer the next one.
            for member in [m for m in self._members if m.batch is not None]:
                self._kill(member)

    def _connect(self) -> None:
        if self._arguments is None:
            self._cleanup.enter_context(ray_session(self._address, image_bytes=self._x.nbytes))
            self._arguments = (self._net.spec, ray.put(self._x), self._batch)

    def _start(self, gpus: int) -> None:
        actor_class: Any = ray.remote(EvaluationWorker)
        actor = actor_class.options(
            num_cpus=1,
            num_gpus=gpus,
            max_concurrency=2,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": worker_environment(1, gpus > 0)},
        ).remote(*(self._arguments or ()))
        self._members.append(_Member(self._started, actor, actor.ready.remote(), time.monotonic()))
        self._on_event({"event": "evaluator_started", "worker": self._started})
        self._started += 1

    def _poll(self, seconds: float = 1.0) -> list[tuple[_Member, Any]]:
        """What is new of which worker: Ready, rows, a Failure, or as text why it counts as lost."""
        asked = {m.asked: m for m in self._members if m.info is None or m.batch is not None}
        done, _ = ray.wait(list(asked), num_returns=1, timeout=seconds)
        events: list[tuple[_Member, Any]] = []
        for reference in done:
            try:
                events.append((asked[reference], ray.get(reference)))
            except LOST as error:
                events.append((asked[reference], f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"))
            except RayTaskError as error:
                events.append(
                    (asked[reference], Failure(f"a worker failed: {str(error.cause or error).splitlines()[0]}"))
                )
        answered = {id(member) for member, _ in events}
        for member in asked.values():
            silent = None if id(member) in answered else self._silent(member)
            if silent is not None:
                events.append((member, silent))
        return events

    def _silent(self, member: _Member) -> str | None:
        """Why a worker with a batch counts as hung, if it does; asks it for a sign of life."""
        now = time.monotonic()
        if member.info is None:
            return None
        if now - member.since > self._limit:
            return f"no result of a batch for {self._limit:.0f} s"
        if member.ping is not None and ray.wait([member.ping], timeout=0)[0]:
            member.ping = None
        if member.ping is None and now - member.pinged > self._patience / 4:
            member.ping, member.pinged = member.actor.ping.remote(), now
        if member.ping is not None and now - member.pinged > self._patience:
            return f"no sign of life for {self._patience:.0f} s"
        return None

    def _lose(self, member: _Member, reason: str, wanted: int) -> None:
        self._kill(member)
        self._losses += 1
        again = [int(member.batch.indices.min()), int(member.batch.indices.max())] if member.batch else []
        self._on_event({"event": "evaluator_lost", "worker": member.number, "reason": reason, "images": again})
        if self._losses > LOSSES[0] + LOSSES[1] * wanted:
            raise EvaluationError(
                f"{self._losses} workers were lost and none finished a batch (last: {reason}); "
                "see whether they run out of memory, then run the same command again"
            )

    def _kill(self, member: _Member) -> None:
        self._members.remove(member)
        with contextlib.suppress(*LOST):
            ray.kill(member.actor, no_restart=True)
        if member.info is not None:
            # A stopped process never reads Ray's message; someone on its own node has to send the signal.
            place = NodeAffinitySchedulingStrategy(member.info.node, soft=False)
            task = ray.remote(_kill_process).options(num_cpus=0, scheduling_strategy=place, max_retries=0)
            task.remote(member.info.pid)


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


def _kill_process(pid: int) -> None:
    command = Path(f"/proc/{pid}/cmdline")
    # The number may have been given to another process meanwhile.
    if command.exists() and b"EvaluationWorker" in command.read_bytes():
        os.kill(pid, signal.SIGKILL)
