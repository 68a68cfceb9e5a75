"""The nearest training image of each image, by the cosine of their tangent features, as a task of an evaluator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import Images
from advntk_dist.data.near_equal import EQUAL
from advntk_dist.evaluation.evaluator import Array
from advntk_dist.grid import spans
from advntk_dist.predictor import KernelPredictor

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
