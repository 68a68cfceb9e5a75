"""Robust accuracy at every radius and in every norm, and how far it is exact, from the rows of committed images.

:mod:`advntk_dist.evaluation.linear_robustness` makes the rows; here nothing heavy is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.evaluation.statistics import Accuracy
from advntk_dist.spec import NORMS, Norm

Array = NDArray[np.float64]

CHECKED = (0.25, 0.5, 1.0, 2.0)
"""Radii at which the exact predictor judges the worst points, as multiples of the attack's radius."""
COLUMNS = len(NORMS) + 3 * len(CHECKED)
"""Numbers of a row of :class:`~advntk_dist.evaluation.linear_robustness.LinearRobustness`."""
POINTS = 65
"""Radii of a curve in its table."""
SHOWN = 0.95
"""The part of the images that is broken, linearly, at the largest radius of a curve."""


@dataclass(frozen=True, eq=False)
class RadiusCurve:
    """The robust accuracy of one predictor over the radius, from the rows of an evaluation.

    Attributes
    ----------
    rows
        (n, COLUMNS).
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
            expected, _, true = self._at(i)
            found.append((share * self.radius, float((expected < 0).mean()), Accuracy.of(true < 0)))
        return found

    def nonlinearity(self) -> tuple[float, float] | None:
        """What the linearisation misses at worst points within the attack's radius, over the median size of margins.

        The median and the 95th percentile of images that are classified correctly without an attack, over the median
        of |linearised margin| at their worst points; None where that cannot be said.
        """
        right = self.rows[:, 0] > 0
        expected, errors, _ = (column[right] for column in self._at(CHECKED.index(1.0)))
        size = float(np.median(np.abs(expected))) if right.any() else 0.0
        if size == 0:
            return None
        return float(np.median(errors)) / size, float(np.quantile(errors, 0.95)) / size

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as results.json has them for a method."""
        off = self.nonlinearity()
        checked = [
            {"radius": r, "expected": expected, "robust": a.value, "robust_interval": [a.low, a.high], "n_test": a.n}
            for r, expected, a in self.checked()
        ]
        curves = {norm: dict(zip(("radii", "robust"), self.curve(norm), strict=True)) for norm in NORMS}
        return {
            "checked": checked,
            "nonlinearity": None if off is None else dict(zip(("median", "high"), off, strict=True)),
            "curves": curves,
        }

    def _at(self, place: int) -> tuple[Array, Array, Array]:
        """Expected margins, their errors and the margins after the attack, (n,) each, at one of CHECKED."""
        start = len(NORMS) + 3 * place
        return self.rows[:, start], self.rows[:, start + 1], self.rows[:, start + 2]
