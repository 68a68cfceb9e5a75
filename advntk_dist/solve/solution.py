"""What a solve returns: never a bare array."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from advntk_dist.errors import SolverError


class Status(StrEnum):
    """How a solve ended."""

    CONVERGED = "converged"
    MAX_PASSES = "tolerance missed: the limit on passes over the Gram matrix was reached"
    BASIS_FULL = "tolerance missed: the Krylov basis reached its memory budget"
    NOT_POSITIVE = "the Gram matrix is not positive semi-definite to working precision"
    STAGNATED = "tolerance missed: rounding keeps the residual from falling further"


_ADVICE = {
    Status.MAX_PASSES: "allow more passes (max_passes) or a larger tolerance (solver.tolerance)",
    Status.BASIS_FULL: "raise solver.memory, or allow a larger tolerance (solver.tolerance)",
    Status.NOT_POSITIVE: "give a kernel matrix, build it in float64, or at t = infinity add a ridge (solver.ridge, "
    "e.g. 1e-6)",
    Status.STAGNATED: "allow a larger tolerance (solver.tolerance), ask for a smaller time, or at t = infinity add a "
    "ridge (solver.ridge), or use float64 tiles",
}


@dataclass(frozen=True, eq=False)
class Solution:
    """A solved block of coefficients, with what is known of its quality.

    Attributes
    ----------
    value
        Coefficients (n, k), float64.
    status
        How the solve ended; ``ok`` says whether the tolerance was met.
    passes
        Passes over the Gram matrix that the solve took (shared by all solutions of one trajectory).
    error
        Estimate, built to be an upper bound, of the relative error of ``value`` in the Frobenius norm.
    smallest_ritz
        The most negative Ritz value met, relative to the largest; below 0 it shows rounding in the tiles, or a matrix
        that is no kernel.
    left_out
        At t = infinity of a singular matrix, the part of the targets in its null space, which no coefficients can
        reach: its norm relative to that of the targets, both weighted by the roots of varpi. Else 0.
    """

    value: NDArray[np.float64]
    status: Status
    passes: int
    error: float
    smallest_ritz: float = 0.0
    left_out: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the tolerance was met."""
        return self.status is Status.CONVERGED

    def checked(self, what: str, tolerance: float) -> Solution:
        """This solution if it converged.

        Raises
        ------
        SolverError
            If it did not: says what was solved, how far it got, and what to change.
        """
        if self.ok:
            return self
        negative = f"an eigenvalue of {self.smallest_ritz:.1e} times the largest, " if self.smallest_ritz < 0 else ""
        raise SolverError(
            f"{what}: {self.status.value} ({negative}estimated relative error {self.error:.1e} after {self.passes} "
            f"passes, wanted {tolerance:.1e}); {_ADVICE[self.status]}"
        )
