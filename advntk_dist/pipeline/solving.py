"""The Gram matrix of a run and what is solved with it: each is computed once, and committed."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.distributed.session import ray_announced
from advntk_dist.dynamics import ATDynamics
from advntk_dist.gram import GramStore, build_gram
from advntk_dist.operators import operator_for_store
from advntk_dist.pipeline.images import changed_images_named
from advntk_dist.pipeline.scoring import Scoring
from advntk_dist.progress import LateStage
from advntk_dist.report import KernelSpectrum
from advntk_dist.results.schema import ADV_NTK
from advntk_dist.solve.solution import Solution
from advntk_dist.storage import Records, guarded_group

if TYPE_CHECKING:
    from advntk_dist.gram.plan import GramPlan

Array = NDArray[np.float64]

SOLVE_FIELDS = ("passes", "error", "smallest_ritz")
SPECTRUM = 100
"""Eigenvalues of the Gram matrix that are kept, at most."""


class Solving(Scoring):
    """Gram matrix, dynamics and committed coefficients; parameters as for :class:`Scoring`."""

    def gram(self) -> GramStore:
        """Build the Gram matrix, or find it built."""
        gram, train = self.config.gram, self.problem.train
        with self.events.stage("gram"), LateStage(self.display, "Gram matrix", "tiles") as shown:

            def on_progress(done: int, total: int, receipt: Any) -> None:
                shown.reach(done, total)
                if receipt is not None:
                    self.events.write("tile", done=done, total=total, receipt=asdict(receipt))

            def on_event(event: dict[str, Any]) -> None:
                details = dict(event)
                name = details.pop("event")
                if name == "worker_started" and not started:
                    self.display.say("starting workers, each of which compiles the kernel")
                    started.append(name)
                self.events.write(name, **details)

            def on_plan(plan: GramPlan) -> None:
                self.display.say(f"plan: {plan}")
                self.events.write("plan", plan=asdict(plan) | {"memory_bytes": plan.memory_bytes})

            started: list[str] = []
            name = self.problem.dataset.name
            with changed_images_named(self.folder.root, name), ray_announced(self.display.say):
                self.store = build_gram(
                    self.problem.net,
                    train.raw,
                    store=self.folder.gram,
                    tile=gram.tile,
                    dtype=gram.dtype,
                    workers=gram.workers,
                    address=self.address,
                    on_progress=on_progress,
                    on_event=on_event,
                    on_plan=on_plan,
                )
        return self.store

    @cached_property
    def store(self) -> GramStore:
        """The Gram store; of a run that is finished, as it lies there."""
        return GramStore.open(self.folder.gram)

    @property
    def dynamics(self) -> ATDynamics:
        """The AT dynamics over the finished Gram matrix; the cluster's cores are theirs, so workers are released."""
        self.release()
        return self._dynamics

    @cached_property
    def _dynamics(self) -> ATDynamics:
        solver = self.config.solver
        operator = operator_for_store(
            self.store, memory=int(solver.memory), operator=solver.operator, address=self.address
        )
        self.display.say(f"operator: {operator.description}")
        root, scratch = self.folder.root, None  # beside a run at a URL: the system's temporary folder
        if isinstance(root, Path):
            scratch = root / "scratch"
            shutil.rmtree(scratch, ignore_errors=True)  # what a start that was killed has left; the folder is ours
        dynamics = ATDynamics(
            operator,
            self.problem.targets,
            ridge=solver.ridge,
            max_passes=solver.max_passes,
            memory=int(solver.memory),
            scratch=scratch,
        )
        self.display.say(dynamics.plan.description)
        return dynamics

    @cached_property
    def coefficients(self) -> zarr.Group:
        """Everything that is solved, committed."""
        return guarded_group(self.folder.coefficients, self.identity)

    @property
    def times(self) -> list[float]:
        """Times of the uniform trajectory: the configured ones, and infinity."""
        return [*self.config.evaluation.times, float("inf")]

    def uniform(self) -> Records:
        """Coefficients (times, n, k) of uniform varpi = t, the last one at t = infinity."""
        shape = self.problem.targets.shape
        table = Records(self.coefficients, "uniform", len(self.times), shape)
        notes = Records(self.coefficients, "uniform_solves", len(self.times), (len(SOLVE_FIELDS),))
        if any(table.read(i) is None for i in range(len(self.times))) or notes.read_all() is None:
            with self.events.stage("solve"), self.display.stage("Uniform dynamics", 1, "solve") as advance:
                solutions = self.dynamics.trajectory(1.0, self.times, self.config.solver.tolerance)
                for i, solution in enumerate(solutions):
                    notes.write(i, _note(solution))
                    table.write(i, solution.value[None])
                advance(1, True)
        return table

    def spectrum(self) -> KernelSpectrum:
        """Leading eigenvalues of the Gram matrix; no pass where the uniform trajectory has just been computed."""
        table = Records(self.coefficients, "spectrum", 1, (2, SPECTRUM))
        rows = table.read(0)
        if rows is None:
            with self.events.stage("solve"):
                values, errors = self.dynamics.leading_eigenvalues(
                    1.0, max(self.config.evaluation.times), self.config.solver.tolerance
                )
            rows = np.zeros((1, 2, SPECTRUM))  # zeros fill the rest: eigenvalues that are kept are positive
            m = min(SPECTRUM, len(values))
            rows[0, 0, :m], rows[0, 1, :m] = values[:m], errors[:m]
            table.write(0, rows)
        kept = rows[0, 0] > 0
        return KernelSpectrum(rows[0, 0][kept], rows[0, 1][kept], self.config.data.n_train)

    def coefficients_of(self, varpi: Array) -> Records:
        """Coefficients (1, n, k) of Adv-NTK at its trained times."""
        table = self.trained()
        notes = Records(self.coefficients, f"{ADV_NTK}_solve", 1, (len(SOLVE_FIELDS),))
        if table.read(0) is None or notes.read_all() is None:
            solution = self.dynamics.coefficients(varpi, tol=self.config.solver.tolerance)
            notes.write(0, _note(solution))
            table.write(0, solution.value[None])
        return table

    def trained(self) -> Records:
        """Coefficients (1, n, k) of Adv-NTK, at its trained times."""
        steps, n = self.config.train.steps, len(self.problem.train.y)
        varpi = Records(guarded_group(self.folder.train, self.identity), "varpi", steps + 1, (n,))
        return Records(self.coefficients, ADV_NTK, 1, self.problem.targets.shape, of=varpi.seal(steps))

    def solves(self) -> dict[str, dict[str, float]]:
        """Passes, error estimates and most negative Ritz values of the committed solves."""
        found = {}
        for key, name, rows in (("uniform", "uniform_solves", len(self.times)), (ADV_NTK, f"{ADV_NTK}_solve", 1)):
            table = Records(self.coefficients, name, rows, (len(SOLVE_FIELDS),)).read_all()
            assert table is not None
            worst = {"passes": table[:, 0].max(), "error": table[:, 1].max(), "smallest_ritz": table[:, 2].min()}
            found[key] = {field: float(value) for field, value in worst.items()}
        return found


def _note(solution: Solution) -> Array:
    return np.array([[solution.passes, solution.error, solution.smallest_ritz]], dtype=np.float64)
