"""Robust accuracy at every radius and in every norm, from one Jacobian an image, and checked exactly at some radii."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import Images, largest_distance
from advntk_dist.attacks.linear import Linearisation
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.evaluation.evaluator import Array
from advntk_dist.evaluation.statistics import Accuracy
from advntk_dist.spec import NORMS, Norm

CHECKED = (0.25, 0.5, 1.0, 2.0)
"""Radii at which the exact predictor judges the worst points, as multiples of the attack's radius."""
POINTS = 65
"""Radii of a curve in its table."""
SHOWN = 0.95
"""The part of the images that is broken, linearly, at the largest radius of a curve."""


@dataclass(frozen=True)
class LinearRobustness:
    """Task: how far each image is from a misclassification by the linearised margin, and what is true of that.

    A row holds the linear robust radius in each norm of NORMS, then for each of CHECKED the margin that the
    linearisation expects at its worst point, and the true one there. Margins are max_k f_k - f_y: positive where an
    image is misclassified. Images that are misclassified without an attack have radius 0; radii that no change of
    the image reaches are those of the whole pixel range.

    Attributes
    ----------
    radius, norm
        Radius whose multiples are checked, and its norm.
    """

    radius: float
    norm: Norm

    @property
    def columns(self) -> int:
        """Numbers of a row."""
        return len(NORMS) + 2 * len(CHECKED)

    def __call__(
        self, predictor: DifferentiablePredictor, x: Images, y: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> Array:
        """The rows (m, columns) of images (m, H, W, C) with labels (m,)."""
        images, rows = to_unit_range(x), np.zeros((len(indices), self.columns))
        f = predictor.predict(images)
        margins = _margins(f, y)
        rows[:, len(NORMS) :] = margins[:, None]
        right = np.flatnonzero(margins < 0)
        if not len(right):
            return rows
        linear = Linearisation.at(predictor, images[right], y[right])
        most = [largest_distance(images, norm) for norm in NORMS]
        rows[right, : len(NORMS)] = np.minimum(linear.radii(), most)
        for i, share in enumerate(CHECKED):
            expected = linear.margins(share * self.radius, self.norm)
            points, _ = linear.worst_points(expected, share * self.radius, self.norm)
            place = len(NORMS) + 2 * i
            rows[right, place] = expected.max(axis=1)
            rows[right, place + 1] = _margins(predictor.predict(points), y[right])
        return rows


def _margins(f: Array, y: NDArray[np.int64]) -> Array:
    rows, others = np.arange(len(f)), f.copy()
    others[rows, y] = -np.inf
    return np.asarray(others.max(axis=1) - f[rows, y])


@dataclass(frozen=True, eq=False)
class RadiusCurve:
    """The robust accuracy of one predictor over the radius, from the rows of :class:`LinearRobustness`.

    Attributes
    ----------
    rows
        (n, columns).
    radius, norm
        As there.
    """

    rows: Array
    radius: float
    norm: Norm

    def robust(self, norm: Norm, radius: float) -> float:
        """The fraction of images whose linear robust radius is above a radius."""
        return float((self.rows[:, NORMS.index(norm)] > radius).mean())

    def curve(self, norm: Norm) -> tuple[list[float], list[float]]:
        """Radii from 0 to where few images are robust, and the robust accuracy at each."""
        column = self.rows[:, NORMS.index(norm)]
        radii = np.linspace(
            0.0, max(float(np.quantile(column, SHOWN)), 2 * self.radius if norm == self.norm else 0.0), POINTS
        )
        return radii.tolist(), [self.robust(norm, r) for r in radii]

    def checked(self) -> list[tuple[float, float, Accuracy]]:
        """Each radius that was checked, the robust accuracy that the linear margins expect there, and the exact one."""
        found = []
        for i, share in enumerate(CHECKED):
            expected, true = self._pair(i)
            found.append((share * self.radius, float((expected < 0).mean()), Accuracy.of(true < 0)))
        return found

    def nonlinearity(self) -> tuple[float, float]:
        """|expected - true margin| at the attack's radius over the median of |true margin|: median, 95th percentile.

        Of images that are classified correctly; 0 where there are none.
        """
        expected, true = self._pair(CHECKED.index(1.0))
        right = self.rows[:, 0] > 0
        if not right.any():
            return 0.0, 0.0
        size = float(np.median(np.abs(true[right])))
        errors = np.abs(expected - true)[right] / (size or 1.0)
        return float(np.median(errors)), float(np.quantile(errors, 0.95))

    def _pair(self, place: int) -> tuple[Array, Array]:
        start = len(NORMS) + 2 * place
        return self.rows[:, start], self.rows[:, start + 1]
