"""Where batches of images are judged, the evaluator that works in this process, and what is found out of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.base import BoundAttack, DifferentiablePredictor
from advntk_dist.attacks.geometry import Images, perturbation_size
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.data.duplicates import EQUAL
from advntk_dist.grid import spans
from advntk_dist.predictor import KernelPredictor
from advntk_dist.spec import Norm

Array = NDArray[np.float64]


class Task(Protocol):
    """What is found out of the images of a batch; must survive pickling where batches go to other processes."""

    def __call__(
        self, predictor: DifferentiablePredictor, x: Images, y: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> Array:
        """One row of numbers an image, (m, columns), from images (m, H, W, C), labels (m,) and indices (m,)."""
        ...


@dataclass(frozen=True, eq=False)
class Batch:
    """Images of one predictor, by their indices (m,), and what is to be found out of them."""

    indices: NDArray[np.int64]
    task: Task


class Evaluator(Protocol):
    """Judges batches of the images of one predictor."""

    def map(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Array]]:
        """Each batch with its rows (m, columns), in any order; each batch comes back once.

        The caller may commit a result while the next is computed.

        Raises
        ------
        EvaluationError
            If a batch cannot be judged.
        """
        ...


class InProcess:
    """Judges batches one after the other in this process.

    Parameters
    ----------
    predictor
        Called once, and only if there is a batch.
    x, y
        Images (n, H, W, C) and labels (n,), of which batches give indices.
    """

    def __init__(self, predictor: Callable[[], DifferentiablePredictor], x: Images, y: NDArray[np.int64]) -> None:
        self._make, self.x, self.y = predictor, x, y
        self._made: DifferentiablePredictor | None = None

    def map(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Array]]:
        """Each batch with its rows, in the order of the batches; errors are those of predictor and attack."""
        for batch in batches:
            if self._made is None:
                self._made = self._make()
            chosen = batch.indices
            yield batch, batch.task(self._made, self.x[chosen], self.y[chosen], chosen)


def is_right(
    predictor: DifferentiablePredictor,
    x: Images,
    y: NDArray[np.int64],
    indices: NDArray[np.int64] | None = None,  # noqa: ARG001 - of the protocol
) -> Array:
    """Task: 1 where an image (m, H, W, C) is classified as its label (m,) says, else 0; (m, 1)."""
    return np.asarray(predictor.predict(x).argmax(axis=1) == y, dtype=np.float64)[:, None]


@dataclass(frozen=True)
class Withstands:
    """Task: whether each image is still classified correctly under an attack, and the size of its perturbation, (m, 2).

    Attributes
    ----------
    attack
        Called as attack(predictor, x, y, seed=..., indices=...).
    norm
        Norm of the perturbation.
    seed
        Seed of the attack.
    """

    attack: BoundAttack
    norm: Norm
    seed: int

    def __call__(
        self, predictor: DifferentiablePredictor, x: Images, y: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> Array:
        """Attack the images (m, H, W, C) with labels (m,); ``indices`` name their random streams."""
        adversarial = self.attack(predictor, x, y, seed=self.seed, indices=indices)
        size = perturbation_size(adversarial, to_unit_range(x), self.norm)
        return np.column_stack([is_right(predictor, adversarial, y)[:, 0], size])


BLOCK = 8192
"""Training images whose kernel values are in memory at once."""
FARTHEST = 2.0
"""Distance of an image that has no other training image: that of opposite features."""


@dataclass(frozen=True, eq=False)
class NearestTraining:
    """Task: the distance of each image to the nearest training image that it does not equal, and its index, (m, 2).

    Attributes
    ----------
    scale
        Theta(x, x)^(-1/2) of the training images, (n,).
    """

    scale: NDArray[np.float64]

    def __call__(
        self,
        predictor: DifferentiablePredictor,
        x: Images,
        y: NDArray[np.int64],  # noqa: ARG002 - of the protocol
        indices: NDArray[np.int64],  # noqa: ARG002
    ) -> Array:
        """Compare the images (m, H, W, C) with all training images of a kernel predictor."""
        assert isinstance(predictor, KernelPredictor)
        own = np.diagonal(predictor.net.ntk(x, x)).astype(np.float64) ** -0.5
        found = np.column_stack([np.full(len(x), FARTHEST), np.zeros(len(x))])
        for s in spans(predictor.n, BLOCK):
            values = predictor.net.ntk(x, predictor.x_train[s])
            nearer(found, distances(values, own, self.scale[s]), s.start)
        return found


def distances(values: NDArray[np.floating], rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Array:
    """1 - cosine (m, n) of kernel values (m, n), given Theta(x, x)^(-1/2) of both sides; FARTHEST for equal images."""
    found = 1.0 - values * rows[:, None] * columns
    found[found <= EQUAL] = FARTHEST
    return np.asarray(found, dtype=np.float64)


def nearer(found: Array, distance: Array, start: int) -> None:
    """Take over into ``found`` (m, 2) what is nearer among distances (m, k) to images from ``start`` on."""
    at = distance.argmin(axis=1)
    least = distance[np.arange(len(distance)), at]
    better = least < found[:, 0]
    found[better] = np.column_stack([least, start + at])[better]
