"""Batches judged by Ray actors, with the rows that this process would get."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import ray
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.geometry import Images
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.distributed.autoscaling import Autoscaling
from advntk_dist.distributed.pool import PING_SECONDS, ActorPool, Call
from advntk_dist.distributed.scheduler import EventSink, run_tasks
from advntk_dist.distributed.task_queue import TaskQueue
from advntk_dist.errors import EvaluationError, RequestError
from advntk_dist.evaluation.evaluator import Array, Batch
from advntk_dist.evaluation.worker import EvaluationWorker
from advntk_dist.networks import Network

BATCH_SECONDS = 6 * 3600.0
"""Longest time that one batch may take."""


class EvaluationPool:
    """Actors that hold the prepared training images, for all evaluations of a run; a context manager.

    Nothing is started before the first batch.

    Parameters
    ----------
    net, x_train
        Network and training images (n, H, W, C): uint8, or floats in [-0.5, 0.5].
    batch
        Number of images that go through a worker at once.
    workers
        Number of actors; by default as for :func:`advntk_dist.gram.build.build_gram`.
    address
        Address of a Ray cluster; by default the Ray that is already in use, or a new one on this machine.
    on_event
        Called with a dict {"event": name, ...} for workers started, ready, lost and retired.
    patience
        Time in seconds without an answer to a ping after which a worker counts as hung and is replaced.

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
        patience: float = PING_SECONDS,
    ) -> None:
        if workers is not None and workers < 1:
            raise RequestError(f"evaluation.workers is {workers}; it must be at least 1")
        self._net, self._x, self._batch = net, to_unit_range(np.asarray(x_train)), batch
        self._workers, self._on_event = workers, on_event
        self._pool = ActorPool(EvaluationWorker, EvaluationError, address, patience=patience)
        self._open = contextlib.ExitStack()
        self._autoscaling: Autoscaling | None = None

    def __enter__(self) -> EvaluationPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def release(self) -> None:
        """End the actors, so that their cores are free; the next batch starts them again."""
        self._pool.release()

    def close(self) -> None:
        """End the actors, and stop Ray if it was started here."""
        self._autoscaling = None
        self._open.close()

    def evaluator(self, coefficients: Callable[[], ArrayLike], x: Images, y: NDArray[np.int64]) -> RemoteEvaluator:
        """Judges images x (m, H, W, C) with labels y under coefficients (n, k), which are asked for if needed."""
        return RemoteEvaluator(self, coefficients, x, y)

    def judge(self, batches: Iterable[Batch], call: Callable[[Batch], Call]) -> Iterator[tuple[Batch, Array]]:
        """Each batch with its rows, as they come; ``call`` makes the call of a batch.

        Raises
        ------
        AdvNTKError
            What a task or the start of a worker has raised, EvaluationError where that is no error of this package.
        EvaluationError
            If workers are lost again and again, or there has been none for too long.
        """
        of = {(int(batch.indices.min()), int(batch.indices.max())): batch for batch in batches}
        if not of:
            return
        autoscaling = self._connect()
        queue = TaskQueue(of, "batch", EvaluationError, deadline=BATCH_SECONDS)
        results = run_tasks(
            queue,
            self._pool,
            lambda key, attempt: call(of[key]),
            target=autoscaling.now,
            on_event=self._event,
        )
        with contextlib.closing(results):
            for key, rows in results:
                yield of[key], rows

    def _connect(self) -> Autoscaling:
        if self._autoscaling is None:
            self._open.callback(self._pool.close)
            self._pool.connect(self._x.nbytes)
            self._open.enter_context(self._pool.job(self._net.spec, ray.put(self._x), self._batch, keep=False))
            self._autoscaling = Autoscaling(self._workers, grows=self._pool.grows, error=EvaluationError)
        return self._autoscaling

    def _event(self, event: dict[str, Any]) -> None:
        """Pass an event on in the words of evaluations."""
        if event["event"] == "worker_lost":
            tasks = event.pop("tasks")
            event["images"] = list(tasks[0]) if tasks else []
        if event["event"] != "task_again":
            self._on_event({**event, "event": event["event"].replace("worker", "evaluator")})


class RemoteEvaluator:
    """The evaluator of one set of coefficients and images on a pool; made by :meth:`EvaluationPool.evaluator`."""

    def __init__(
        self, pool: EvaluationPool, coefficients: Callable[[], ArrayLike], x: Images, y: NDArray[np.int64]
    ) -> None:
        self._pool, self._make, self.x, self.y = pool, coefficients, x, y
        self._name = uuid.uuid4().hex
        self._reference: Any = None

    def map(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Array]]:
        """Each batch with its rows, as they come; errors as :meth:`EvaluationPool.judge`."""
        return self._pool.judge(batches, self._call)

    def _call(self, batch: Batch) -> Call:
        if self._reference is None:
            self._reference = ray.put(np.asarray(self._make(), dtype=np.float64))
        i = batch.indices
        where = f"images {i.min()} to {i.max()}"
        return Call("judge", where, (self._name, self._reference, self.x[i], self.y[i], i, batch.task))
