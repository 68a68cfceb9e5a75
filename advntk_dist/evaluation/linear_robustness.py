"""How far each image is from a misclassification: one Jacobian an image, and the exact predictor at some radii."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import Images, largest_distance
from advntk_dist.attacks.linear import Linearisation, attack_linear
from advntk_dist.attacks.request import AttackRequest
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.evaluation.evaluator import Array
from advntk_dist.evaluation.radius_curve import CHECKED, COLUMNS
from advntk_dist.spec import NORMS, Norm


@dataclass(frozen=True)
class LinearRobustness:
    """Task: how far each image is from a misclassification by the linearised margin, and what is true of that.

    A row holds the linear robust radius in each norm of NORMS, then for each of CHECKED the margin that the
    linearisation expects at its worst point, what it misses of the true one there, and the true margin that the attack
    ends with (:func:`advntk_dist.attacks.linear.linear`). Margins are max_k f_k - f_y: positive where an image is
    misclassified. Images that are misclassified without an attack have radius 0; where no change of the image is
    enough, the radius is twice that of the whole pixel range.

    Attributes
    ----------
    radius, norm
        Radius whose multiples are checked, and its norm.
    steps, step_size
        Steps of PGD that the attack takes where the margin is not linear, and the length of one at ``radius``.
    """

    radius: float
    norm: Norm
    steps: int
    step_size: float

    def __call__(
        self, predictor: DifferentiablePredictor, x: Images, y: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> Array:
        """The rows (m, COLUMNS) of images (m, H, W, C) with labels (m,)."""
        images, rows = to_unit_range(x), np.zeros((len(indices), COLUMNS))
        right = np.flatnonzero(predictor.predict(images).argmax(axis=1) == y)
        rows[:, len(NORMS) :] = np.tile([1.0, 0.0, 1.0], len(CHECKED))
        if not len(right):
            return rows
        linearisation = Linearisation.at(predictor, images[right], y[right])
        most = [largest_distance(images, norm) for norm in NORMS]
        radii = linearisation.radii()
        rows[right, : len(NORMS)] = np.where(np.isfinite(radii), radii, 2 * np.array(most))
        for place, share in enumerate(CHECKED):
            radius = share * self.radius
            request = AttackRequest.of(
                predictor, images[right], y[right], radius=radius, steps=self.steps, norm=self.norm, loss="margin"
            )
            found = attack_linear(request, self.steps, share * self.step_size, linearisation)
            start = len(NORMS) + 3 * place
            rows[right, start : start + 3] = np.column_stack([found.expected, found.errors, found.margins])
        return rows
