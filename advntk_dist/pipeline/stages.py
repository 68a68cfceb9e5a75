"""The stages of a run; each reads what the one before it committed, and does only what is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.registry import bind_attack
from advntk_dist.config import AttackConfig
from advntk_dist.evaluation import MethodResult
from advntk_dist.pipeline.outcomes import curve_name, most_robust, outcome_names
from advntk_dist.pipeline.problem import Part
from advntk_dist.pipeline.scoring import CommittedCoefficients
from advntk_dist.pipeline.solving import Solving
from advntk_dist.predictor import KernelPredictor
from advntk_dist.progress import LateStage
from advntk_dist.results.schema import ADV_NTK
from advntk_dist.storage import Records, guarded_group
from advntk_dist.training import StepRecord, TrainingRun, train_adv_ntk
from advntk_dist.training.recipes import recipe_of

Array = NDArray[np.float64]

EXAMPLES = 8


class Stages(Solving):
    """One run in its directory; parameters as for :class:`Scoring`."""

    def description(self) -> dict[str, Any]:
        """What a run is, as its JSON files have it: data, network, numbers of images."""
        sizes = self.config.data.model_dump(include={"n_train", "n_val", "n_test"})
        return {**self.identity, "dataset": self.problem.dataset.name, "network": self.config.network.name} | sizes

    def select(self) -> tuple[int, list[MethodResult]]:
        """Attack the validation images at every time; the index of the time with the best robust accuracy."""
        results = self._curve("select", "Early stopping", "validation", self.problem.val)
        return most_robust(results), results

    def curve(self) -> list[MethodResult]:
        """The degeneration curve: clean and robust test accuracy at every finite time."""
        (name, m), test = curve_name(self.config), self.problem.test
        return self._curve("evaluate", "Degeneration curve", name, test if m == len(test.y) else test.first(m))

    def _curve(self, stage: str, title: str, name: str, part: Part) -> list[MethodResult]:
        table, times = self.uniform(), self.config.evaluation.times
        with self.events.stage(stage), self.display.stage(title, len(times) * len(part.y), "images") as advance:
            return [
                self._evaluate(f"{name}_t{i}", part, CommittedCoefficients(table, i), self.config.attack, advance)
                for i in range(len(times))
            ]

    def train(self) -> TrainingRun:
        """Adv-NTK, and its coefficients."""
        train, problem = self.config.train, self.problem
        group = guarded_group(self.folder.train, self.identity)
        with self.events.stage("train"), LateStage(self.display, "Adv-NTK", "steps") as shown:

            def on_step(step: int, record: StepRecord) -> None:
                shown.reach(step, train.steps)
                shown.reach(step + 1, train.steps)
                self.events.write("step", step=step + 1, loss=record.loss, robust=record.robust)

            def predictor() -> KernelPredictor:
                self._say_once("compiling the steps of Adv-NTK")
                return problem.predictor

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
                predictor,
                len(problem.train.y),
                group=group,
                steps=train.steps,
                on_step=on_step,
            )
            self.coefficients_of(run.varpi)
        return run

    def sources(self, chosen: int) -> dict[str, tuple[str, CommittedCoefficients]]:
        """The name of each method's outcomes on test images, and its coefficients; ``chosen`` is the early stop."""
        table = self.uniform()
        rows = {"ntk": (table, len(self.times) - 1), "early_stopped": (table, chosen), ADV_NTK: (self.trained(), 0)}
        names = outcome_names(self.config, chosen)
        return {method: (names[method], CommittedCoefficients(*row)) for method, row in rows.items()}

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

    def examples(self) -> tuple[Array, Array]:
        """Adversarial twins (m, H, W, C) of the first test images under Adv-NTK, and both predictions (m, 2)."""
        test, attack = self.problem.test, self.config.attack
        m = min(EXAMPLES, len(test.y))
        shape = test.x.shape[1:]
        table = Records(self._outcomes(attack), "examples", m, (int(np.prod(shape)) + 2,), span=m)
        rows = table.read(0)
        if rows is None:
            predictor = self.predictor(CommittedCoefficients(self.trained(), 0)())
            x, y = test.x[:m], test.y[:m]
            twins = bind_attack(attack)(predictor, x, y, seed=attack.seed, indices=np.arange(m))
            guesses = np.column_stack([predictor.predict(x).argmax(axis=1), predictor.predict(twins).argmax(axis=1)])
            rows = np.hstack([twins.reshape(m, -1), guesses]).astype(np.float64)
            table.write(0, rows)
        return rows[:, :-2].reshape(m, *shape), rows[:, -2:]
