"""The Ray actor that judges batches of images; it holds the prepared training images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.distributed.worker import PooledActor
from advntk_dist.spec import NetworkSpec

if TYPE_CHECKING:
    from advntk_dist.evaluation.evaluator import Task
    from advntk_dist.predictor import KernelPredictor


class EvaluationWorker(PooledActor):
    """Judges batches under whatever coefficients it is given."""

    def prepare(self, spec: NetworkSpec, x_train: NDArray[Any], batch: int) -> dict[str, Any]:
        """Make the network and prepare the training images.

        Parameters
        ----------
        spec
            The network.
        x_train
            Training images (n, H, W, C) as floats, shared memory of the node.
        batch
            Number of images that go through at once.
        """
        from advntk_dist.networks import from_spec
        from advntk_dist.predictor import KernelPredictor

        zeros = np.zeros((len(x_train), 1))
        self.predictor = KernelPredictor(from_spec(spec), x_train, zeros, batch=batch)
        self.current: tuple[str, KernelPredictor] | None = None
        return {}

    def rest(self) -> None:
        """Free the training images."""
        del self.predictor, self.current

    def judge(
        self,
        name: str,
        coefficients: NDArray[np.float64],
        x: NDArray[Any],
        y: NDArray[np.int64],
        indices: NDArray[np.int64],
        task: Task,
    ) -> NDArray[np.float64]:
        """The rows of a task on images x with labels y, under the coefficients (n, k) that ``name`` identifies."""
        if self.current is None or self.current[0] != name:
            self.current = name, self.predictor.with_coefficients(coefficients)
        return np.asarray(task(self.current[1], x, y, indices))
