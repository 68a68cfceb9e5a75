"""The stages of a run; each reads what the one before it committed, and does only what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.attacks.configured import bind_attack
from advntk_dist.config import AttackConfig
from advntk_dist.dynamics import ATDynamics
from advntk_dist.errors import StoreDamagedError
from advntk_dist.evaluation import MethodResult
from advntk_dist.gram import GramStore, build_gram
from advntk_dist.operators import operator_for_store
from advntk_dist.pipeline.problem import Part
from advntk_dist.pipeline.scoring import Scoring
from advntk_dist.progress import Display
from advntk_dist.report import KernelSpectrum
from advntk_dist.solve.solution import Solution
from advntk_dist.storage import Records, guarded_group
from advntk_dist.training import StepRecord, TrainingRun, train_adv_ntk
from advntk_dist.training.configured import recipe_of

if TYPE_CHECKING:
    from advntk_dist.gram.plan import GramPlan

Array = NDArray[np.float64]

ADV_NTK = "adv_ntk"
SOLVE_FIELDS = ("passes", "error", "smallest_ritz")
EXAMPLES = 8
SPECTRUM = 100
"""Eigenvalues of the Gram matrix that are kept, at most."""


class Stages(Scoring):
    """One run in its directory; parameters as for :class:`Scoring`."""

    def gram(self) -> GramStore:
        """Build the Gram matrix, or find it built."""
        gram, train = self.config.gram, self.problem.train
        with self.events.stage("gram"), _Lazy(self.display, "Gram matrix", "tiles") as shown:

            def on_progress(done: int, total: int, receipt: Any) -> None:
                shown.reach(done, total)
                if receipt is not None:
                    self.events.write("tile", done=done, total=total, receipt=asdict(receipt))

            def on_event(event: dict[str, Any]) -> None:
                details = dict(event)
                self.events.write(details.pop("event"), **details)

            def on_plan(plan: GramPlan) -> None:
                self.display.say(f"plan: {plan}")
                self.events.write("plan", plan=asdict(plan) | {"memory_bytes": plan.memory_bytes})

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
    def _coefficients(self) -> zarr.Group:
        return guarded_group(self.folder.coefficients, self.identity)

    @property
    def times(self) -> list[float]:
        """Times of the uniform trajectory: the configured ones, and infinity."""
        return [*self.config.evaluation.times, float("inf")]

    def uniform(self) -> Records:
        """Coefficients (times, n, k) of uniform varpi = t, the last one at t = infinity."""
        shape = self.problem.targets.shape
        table = Records(self._coefficients, "uniform", len(self.times), shape)
        notes = Records(self._coefficients, "uniform_solves", len(self.times), (len(SOLVE_FIELDS),))
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
        table = Records(self._coefficients, "spectrum", 1, (2, SPECTRUM))
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

    def select(self) -> tuple[int, list[MethodResult]]:
        """Attack the validation images at every time; the index of the time with the best robust accuracy."""
        results = self._curve("select", "Early stopping", "validation", self.problem.val)
        return max(range(len(results)), key=lambda i: (results[i].robust.value, -i)), results

    def curve(self) -> list[MethodResult]:
        """The degeneration curve: clean and robust test accuracy at every finite time."""
        test, m = self.problem.test, self.config.evaluation.curve
        if m is None or m == len(test.y):
            return self._curve("evaluate", "Degeneration curve", "test", test)
        return self._curve("evaluate", "Degeneration curve", f"curve{m}", test.first(m))

    def _curve(self, stage: str, title: str, name: str, part: Part) -> list[MethodResult]:
        table, times = self.uniform(), self.config.evaluation.times
        with self.events.stage(stage), self.display.stage(title, len(times) * len(part.y), "images") as advance:
            return [
                self._evaluate(f"{name}_t{i}", part, partial(self._row, table, i), self.config.attack, advance)
                for i in range(len(times))
            ]

    def train(self) -> TrainingRun:
        """Adv-NTK, and its coefficients."""
        train, problem = self.config.train, self.problem
        group = guarded_group(self.folder.train, self.identity)
        with self.events.stage("train"), _Lazy(self.display, "Adv-NTK", "steps") as shown:

            def on_step(step: int, record: StepRecord) -> None:
                shown.reach(step, train.steps)
                shown.reach(step + 1, train.steps)
                self.events.write("step", step=step + 1, loss=record.loss, robust=record.robust)

            recipe = recipe_of(
                train,
                problem.train,
                problem.val,
                bind_attack(self.config.attack),
                lambda: self.config.evaluation.times[self.select()[0]],
                self.config.solver.tolerance,
            )
            run = train_adv_ntk(
                recipe,
                lambda: self.dynamics,
                lambda: problem.predictor,
                len(problem.train.y),
                group=group,
                steps=train.steps,
                on_step=on_step,
            )
            table = self.trained()
            notes = Records(self._coefficients, f"{ADV_NTK}_solve", 1, (len(SOLVE_FIELDS),))
            if table.read(0) is None or notes.read_all() is None:
                solution = self.dynamics.coefficients(run.varpi, tol=self.config.solver.tolerance)
                notes.write(0, _note(solution))
                table.write(0, solution.value[None])
        return run

    def trained(self) -> Records:
        """Coefficients (1, n, k) of Adv-NTK."""
        return Records(self._coefficients, ADV_NTK, 1, self.problem.targets.shape)

    def solves(self) -> dict[str, dict[str, float]]:
        """Passes, error estimates and most negative Ritz values of the committed solves."""
        found = {}
        for key, name, rows in (("uniform", "uniform_solves", len(self.times)), (ADV_NTK, f"{ADV_NTK}_solve", 1)):
            table = Records(self._coefficients, name, rows, (len(SOLVE_FIELDS),)).read_all()
            assert table is not None
            worst = {"passes": table[:, 0].max(), "error": table[:, 1].max(), "smallest_ritz": table[:, 2].min()}
            found[key] = {field: float(value) for field, value in worst.items()}
        return found

    def sources(self, chosen: int) -> dict[str, tuple[str, Callable[[], Array]]]:
        """The name of each method's outcomes on test images, and its coefficients; ``chosen`` is the early stop."""
        table, trained = self.uniform(), self.trained()
        rows = {
            "ntk": (f"test_t{len(self.times) - 1}", table, len(self.times) - 1),
            "early_stopped": (f"test_t{chosen}", table, chosen),
            ADV_NTK: (f"test_{ADV_NTK}", trained, 0),
        }
        return {method: (name, partial(self._row, t, i)) for method, (name, t, i) in rows.items()}

    def methods(self, chosen: int, attack: AttackConfig) -> dict[str, MethodResult]:
        """The three methods on the test images under an attack."""
        sources, test = self.sources(chosen), self.problem.test
        with (
            self.events.stage("evaluate"),
            self.display.stage("Test images", len(sources) * len(test.y), "images") as advance,
        ):
            return {
                method: self._evaluate(name, test, coefficients, attack, advance)
                for method, (name, coefficients) in sources.items()
            }

    def _row(self, table: Records, row: int) -> Array:
        values = table.read(row)
        if values is None:
            raise StoreDamagedError(f"{table.where}: row {row} is missing; run the same command again")
        return np.asarray(values[0])

    def examples(self) -> tuple[Array, Array]:
        """Adversarial twins (m, H, W, C) of the first test images under Adv-NTK, and both predictions (m, 2)."""
        test, attack = self.problem.test, self.config.attack
        m = min(EXAMPLES, len(test.y))
        shape = test.x.shape[1:]
        table = Records(self._outcomes(attack), "examples", m, (int(np.prod(shape)) + 2,), span=m)
        rows = table.read(0)
        if rows is None:
            predictor = self.predictor(self._row(self.trained(), 0))
            x, y = test.x[:m], test.y[:m]
            twins = bind_attack(attack)(predictor, x, y, seed=attack.seed, indices=np.arange(m))
            guesses = np.column_stack([predictor.predict(x).argmax(axis=1), predictor.predict(twins).argmax(axis=1)])
            rows = np.hstack([twins.reshape(m, -1), guesses]).astype(np.float64)
            table.write(0, rows)
        return rows[:, :-2].reshape(m, *shape), rows[:, -2:]


class _Lazy:
    """A stage that is shown only once it is known to have work, and how much."""

    def __init__(self, display: Display, name: str, unit: str) -> None:
        self._display, self._name, self._unit = display, name, unit
        self._stage: Any = None
        self._advance: Any = None
        self._done = 0

    def __enter__(self) -> _Lazy:
        return self

    def reach(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units are done; what was done at the first call is not work of today."""
        fresh = self._stage is not None
        if self._stage is None:
            self._stage = self._display.stage(self._name, total, self._unit)
            self._advance = self._stage.__enter__()
        self._advance(done - self._done, fresh)
        self._done = done

    def __exit__(self, *error: object) -> None:
        if self._stage is not None:
            self._stage.__exit__(*error)


def _note(solution: Solution) -> Array:
    return np.array([[solution.passes, solution.error, solution.smallest_ritz]], dtype=np.float64)
