"""The flows that `advntk dynamics` compares: effective times, coefficients, and what the closed form leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.dynamics import ATDynamics
from advntk_dist.grid import spans
from advntk_dist.storage import Records
from advntk_dist.theory.piecewise import distances, solved_in_pieces
from advntk_dist.theory.schedules import Constant, PerSample, Schedule, named
from advntk_dist.theory.xi import xi

Array = NDArray[np.float64]

_FIELDS = ("bases", "passes", "error")
_PROPORTIONAL = 1e-9
"""Relative spread below which Xi at different times counts as a multiple of one diagonal."""


@dataclass(frozen=True)
class Solved:
    """Coefficients (times, n, k) of a flow, and what they cost."""

    coefficients: Records
    cost: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Flow:
    """Xi(t) over a grid of finite times.

    Attributes
    ----------
    times
        (T,).
    xi
        (T, n).
    exponent
        Theta_x eta S at the peak of the schedule, (n,).
    ark
        (n,).
    eta
        Rates over time, for an inner flow of length 1.
    """

    times: Array
    xi: Array
    exponent: Array
    ark: Array
    eta: Schedule

    @classmethod
    def standard(cls, times: Array, n: int) -> Flow:
        """Training without an attack: Xi(t) = t."""
        return cls(times, np.repeat(times[:, None], n, axis=1), np.zeros(n), np.zeros(n), Constant(0.0))

    @property
    def effective(self) -> Array:
        """Effective time of the median sample, (T,)."""
        return np.asarray(np.median(self.xi, axis=1))

    @property
    def commutes(self) -> bool:
        """Whether Xi(t) is one diagonal times a function of time, so that the closed form is exact."""
        shape = self.xi / self.xi.max(axis=1, keepdims=True)
        return bool(np.abs(shape - shape[-1]).max() <= _PROPORTIONAL)

    def describe(self) -> dict[str, Any]:
        """What dynamics.json says about the flow."""
        low, middle, high = (float(np.exp(v)) for v in np.quantile(self.exponent, [0.05, 0.5, 0.95]))
        return {
            "factor": {"5%": low, "median": middle, "95%": high},
            "closed_form_is_exact": self.commutes,
        }

    def solve(self, dynamics: ATDynamics, group: zarr.Group, tol: float) -> Solved:
        """Coefficients of the closed form at all times; one Krylov basis where Xi(t) is a multiple of one diagonal."""
        table = Records(group, "coefficients", len(self.times), dynamics.y.shape)
        notes = Records(group, "cost", 1, (len(_FIELDS),))
        cost = notes.read(0)
        if cost is None or any(table.read(i) is None for i in range(len(self.times))):
            if self.commutes:
                solutions = dynamics.trajectory(self.xi[-1], list(self.xi[:, 0] / self.xi[-1, 0]), tol)
                cost = np.array([[1, max(s.passes for s in solutions), max(s.error for s in solutions)]], dtype=float)
            else:
                solutions = [dynamics.coefficients(row, tol=tol) for row in self.xi]
                passes, error = sum(s.passes for s in solutions), max(s.error for s in solutions)
                cost = np.array([[len(solutions), passes, error]], dtype=float)
            for i, solution in enumerate(solutions):
                table.write(i, solution.value[None])
            notes.write(0, cost)
        bases, passes, error = cost[0]
        return Solved(table, {"bases": int(bases), "passes": int(passes), "error": float(error)})

    def exactness(
        self, dynamics: ATDynamics, closed: Records, group: zarr.Group, pieces: int, tol: float
    ) -> Array | None:
        """Distances (T, 2) on the training images: closed form to pieces, and half as many pieces to all of them.

        None where the closed form is exact.
        """
        if self.commutes:
            return None
        table = Records(group, "exactness", len(self.times), (2,), span=len(self.times))
        found = table.read(0)
        if found is None:
            marks = np.concatenate([[0.0], self.times])
            fine, coarse = (
                solved_in_pieces(dynamics, self.ark, self.eta, inner_time=1.0, marks=marks, pieces=p, tol=tol)
                for p in (2 * pieces, pieces)
            )
            found = np.empty((len(self.times), 2))
            for i in range(len(self.times)):
                value = closed.read(i)
                assert value is not None
                found[i] = distances(dynamics.operator, value[0], fine[i].value, coarse[i].value)
            table.write(0, found)
        return found

    def remarks(self, ark: Array, uniform: bool) -> list[str]:
        """Plain sentences about what this flow can show."""
        said = []
        if np.ptp(ark) <= 1e-6 * ark.max():
            said.append(f"The ARK is {ark[0]:.4g} for every image: with ReLU it depends on the architecture alone.")
            if uniform:
                said.append(
                    "With one rate for all samples adversarial training is standard training with the clock rescaled: "
                    "the same predictors at other times, so the same degeneration."
                )
        if not self.commutes:
            said.append(
                "Xi'(t) at different times do not commute: the closed form is an approximation, its distance to the "
                "exact flow is given at every time."
            )
        return said


def adversarial_flow(
    ark: Array,
    factors: Array,
    *,
    strength: float,
    schedule: str,
    duration: float | None,
    times: Sequence[float],
) -> Flow:
    """Adversarial training whose median sample has Theta_x eta S = strength at the peak of the schedule.

    The inner flow has length S = 1: only eta S enters. Times are the given ones divided by e^strength, so that the
    median effective times are those of standard training (at a constant rate).
    """
    grid = np.asarray(times, dtype=np.float64) / np.exp(strength)
    span = duration if duration is not None else float(np.sqrt(grid[0] * grid[-1]))
    scale = float(np.median(ark * factors))
    rates = factors * (strength / scale if scale > 0 else 0.0)
    eta = PerSample(rates, named(schedule, span))
    return Flow(grid, xi(ark, eta, inner_time=1.0, times=list(grid)), ark * rates, ark, eta)


def class_distances(x: NDArray[Any], y: NDArray[np.int64]) -> Array:
    """Distance of each image (n, H, W, C) to the nearest image of another class, over the median of these, (n,)."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    norms = (flat**2).sum(axis=1)
    nearest = np.empty(len(x))
    for span in spans(len(x), 256):
        squared = norms[span, None] + norms - 2 * flat[span] @ flat.T
        nearest[span] = np.where(y[span, None] == y, np.inf, squared).min(axis=1)
    if not np.isfinite(nearest).all():  # one class alone
        return np.ones(len(x))
    distances = np.sqrt(np.maximum(nearest, 0.0))
    middle = float(np.median(distances))
    return np.asarray(distances / middle if middle > 0 else np.ones(len(x)))
