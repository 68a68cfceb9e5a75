"""What is solved with the Gram matrix of a run: the dynamics over it, and the committed coefficients."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.dynamics import ATDynamics
from advntk_dist.errors import StoreDamagedError
from advntk_dist.gram import GramStore
from advntk_dist.operators import operator_for_store
from advntk_dist.pipeline.context import RunContext
from advntk_dist.results.schema import ADV_NTK
from advntk_dist.solve.solution import Solution
from advntk_dist.storage import Records, guarded_group

Array = NDArray[np.float64]

SOLVE_FIELDS = ("passes", "error", "smallest_ritz")
SPECTRUM = 100
"""Eigenvalues of the Gram matrix that are kept, at most."""


@dataclass(frozen=True)
class CommittedCoefficients:
    """Coefficients (n, k) of one predictor as a row of a table, read when they are called for."""

    table: Records
    row: int

    def __call__(self) -> Array:
        """The coefficients.

        Raises
        ------
        StoreDamagedError
            If they are not committed.
        """
        values = self.table.read(self.row)
        if values is None:
            raise StoreDamagedError(
                f"{self.table.where}: row {self.row} is not there; `advntk run` with the same configuration and --out "
                "computes it again"
            )
        return np.asarray(values[0])

    @property
    def seal(self) -> int:
        """What outcomes of these coefficients are sealed with."""
        return self.table.seal(self.row)


class GramSolver:
    """A Gram matrix and the AT dynamics over it, opened when they are first needed and closed with their context.

    Parameters
    ----------
    context
        The run whose matrix it is; runs of other attacks on the same data and network may share it.
    find
        Gives the complete Gram store; by default the one in the run directory is opened.
    """

    def __init__(self, context: RunContext, find: Callable[[], GramStore] | None = None) -> None:
        self._context, self._find = context, find or (lambda: GramStore.open(context.folder.gram))
        self._store: GramStore | None = None
        self._dynamics: ATDynamics | None = None
        self._trajectory: tuple[tuple[float, ...], float, list[Solution]] | None = None

    def store(self) -> GramStore:
        """The Gram store."""
        if self._store is None:
            self._store = self._find()
        return self._store

    def dynamics(self) -> ATDynamics:
        """The AT dynamics over the Gram matrix."""
        if self._dynamics is None:
            self._dynamics = self._open()
        return self._dynamics

    def knows_uniform(self, times: tuple[float, ...], tolerance: float) -> bool:
        """Whether :meth:`uniform` has solved just this last."""
        return self._trajectory is not None and self._trajectory[:2] == (times, tolerance)

    def uniform(self, times: tuple[float, ...], tolerance: float) -> list[Solution]:
        """Coefficients of uniform varpi = t at every time; the last ones are kept for runs that share the matrix."""
        if self._trajectory is None or not self.knows_uniform(times, tolerance):
            self._trajectory = times, tolerance, self.dynamics().trajectory(1.0, times, tolerance)
        return self._trajectory[2]

    def _open(self) -> ATDynamics:
        context, solver = self._context, self._context.config.solver
        operator = operator_for_store(
            self.store(), memory=int(solver.memory), operator=solver.operator, address=context.address
        )
        context.close_at_end(self._close)
        context.close_at_end(operator.close)
        context.display.say(f"operator: {operator.description}")
        self._remove_scratch()  # what a start that was killed has left; the folder is ours
        dynamics = ATDynamics(
            operator,
            context.problem.targets,
            ridge=solver.ridge,
            max_passes=solver.max_passes,
            memory=int(solver.memory),
            scratch=context.scratch,
        )
        context.display.say(dynamics.plan.description)
        return dynamics

    def _close(self) -> None:
        """Free the matrix and the Krylov bases."""
        self._dynamics = self._trajectory = None
        self._remove_scratch()

    def _remove_scratch(self) -> None:
        if self._context.scratch is not None:
            shutil.rmtree(self._context.scratch, ignore_errors=True)


class Coefficients:
    """The committed coefficients of a run, and what they are solved with.

    Parameters
    ----------
    context
        The run.
    solver
        Over its Gram matrix.
    """

    def __init__(self, context: RunContext, solver: GramSolver) -> None:
        self.context, self.solver = context, solver

    @cached_property
    def group(self) -> zarr.Group:
        """Where everything that is solved is committed."""
        return guarded_group(self.context.folder.coefficients, self.context.identity)

    @cached_property
    def training(self) -> zarr.Group:
        """Where the training of Adv-NTK is committed."""
        return guarded_group(self.context.folder.train, self.context.identity)

    @property
    def times(self) -> tuple[float, ...]:
        """Times of the uniform trajectory: the configured ones, and infinity."""
        return (*self.context.config.evaluation.times, float("inf"))

    def uniform(self) -> Records:
        """Coefficients (times, n, k) of uniform varpi = t, the last one at t = infinity."""
        return Records(self.group, "uniform", len(self.times), self._shape)

    def uniform_solves(self) -> Records:
        """SOLVE_FIELDS of each of them, (times, 3)."""
        return Records(self.group, "uniform_solves", len(self.times), (len(SOLVE_FIELDS),))

    def trained(self) -> Records:
        """Coefficients (1, n, k) of Adv-NTK, which count with the trained times that they were solved with."""
        steps, n = self.context.config.train.steps, self._shape[0]
        varpi = Records(self.training, "varpi", steps + 1, (n,))
        return Records(self.group, ADV_NTK, 1, self._shape, of=varpi.seal(steps))

    def trained_solve(self) -> Records:
        """SOLVE_FIELDS of these, (1, 3)."""
        return Records(self.group, f"{ADV_NTK}_solve", 1, (len(SOLVE_FIELDS),))

    def spectrum(self) -> Records:
        """Leading eigenvalues of the Gram matrix and their errors, (1, 2, SPECTRUM), with zeros after the last."""
        return Records(self.group, "spectrum", 1, (2, SPECTRUM))

    def commit(self, table: Records, notes: Records, solutions: list[Solution]) -> None:
        """Commit solutions, one a row, and what they took."""
        for i, solution in enumerate(solutions):
            notes.write(i, np.array([[getattr(solution, field) for field in SOLVE_FIELDS]], dtype=np.float64))
            table.write(i, solution.value[None])

    def solves(self) -> dict[str, dict[str, float]]:
        """Passes, error estimates and most negative Ritz values of the committed solves."""
        found = {}
        for name, notes in (("uniform", self.uniform_solves()), (ADV_NTK, self.trained_solve())):
            table = notes.read_all()
            assert table is not None
            worst = {"passes": table[:, 0].max(), "error": table[:, 1].max(), "smallest_ritz": table[:, 2].min()}
            found[name] = {field: float(value) for field, value in worst.items()}
        return found

    @property
    def _shape(self) -> tuple[int, int]:
        """Training images and classes, (n, k)."""
        return len(self.context.problem.train.y), self.context.problem.dataset.n_classes
