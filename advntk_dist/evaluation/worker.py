"""The Ray actor that judges batches of images; it holds the prepared training images."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.errors import AdvNTKError
from advntk_dist.spec import NetworkSpec

if TYPE_CHECKING:
    from advntk_dist.evaluation.evaluator import Task
    from advntk_dist.predictor import KernelPredictor


@dataclass(frozen=True)
class Ready:
    """Where a worker that can take batches runs."""

    pid: int
    node: str
    host: str


@dataclass(frozen=True)
class Failure:
    """A batch that cannot be judged, or a worker that cannot start; trying again would not help."""

    message: str


class EvaluationWorker:
    """Judges batches under whatever coefficients it is given. Ray runs it with two threads: one of them answers pings.

    Parameters
    ----------
    spec
        The network.
    x_train
        Training images (n, H, W, C) as floats, shared memory of the node.
    batch
        Images that go through at once.
    """

    def __init__(self, spec: NetworkSpec, x_train: NDArray[Any], batch: int) -> None:
        self.spec, self.x_train, self.batch = spec, x_train, batch
        self._current: tuple[str, KernelPredictor] | None = None

    def ready(self) -> Ready | Failure:
        """Import JAX, make the network and prepare the training images."""
        try:
            import ray

            from advntk_dist.gram.gpu import unused_gpu
            from advntk_dist.networks import from_spec
            from advntk_dist.predictor import KernelPredictor

            if (wrong := unused_gpu()) is not None:
                return Failure(f"a worker on {socket.gethostname()} {wrong}")
            zeros = np.zeros((len(self.x_train), 1))
            self.predictor = KernelPredictor(from_spec(self.spec), self.x_train, zeros, batch=self.batch)
            return Ready(os.getpid(), ray.get_runtime_context().get_node_id(), socket.gethostname())
        except Exception as error:
            return Failure(f"a worker on {socket.gethostname()} cannot start: {type(error).__name__}: {error}")

    def ping(self) -> None:
        """Answers at once, unless the process hangs."""

    def judge(
        self,
        subject: str,
        coefficients: NDArray[np.float64],
        x: NDArray[Any],
        y: NDArray[np.int64],
        indices: NDArray[np.int64],
        task: Task,
    ) -> NDArray[np.float64] | Failure:
        """The rows of a task on images x with labels y, under the coefficients (n, k) that ``subject`` names."""
        try:
            if self._current is None or self._current[0] != subject:
                self._current = subject, self.predictor.with_coefficients(coefficients)
            return np.asarray(task(self._current[1], x, y, indices))
        except Exception as error:
            # Errors cross Ray as text: not every exception survives pickling, and none of these is worth a retry.
            name = "" if isinstance(error, AdvNTKError) else f"{type(error).__name__}: "
            return Failure(f"images {indices.min()} to {indices.max()}: {name}{error}")
