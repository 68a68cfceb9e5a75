"""The work on one subject: one Gram matrix, and what every cell over it shares."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.configured import bind_attack
from advntk_dist.config import AttackConfig, RunConfig, parse_config
from advntk_dist.dynamics import ATDynamics
from advntk_dist.errors import StoreDamagedError
from advntk_dist.evaluation import MethodResult, evaluate
from advntk_dist.finite.config import AdversarialTrainingConfig
from advntk_dist.gram import build_gram
from advntk_dist.operators import operator_for_store
from advntk_dist.pipeline.problem import Part, Problem
from advntk_dist.progress import Display
from advntk_dist.reproduce import paper
from advntk_dist.reproduce.grid import Cell, Subject
from advntk_dist.storage import Records, guarded_group
from advntk_dist.training import PaperRecipe, train_adv_ntk

Array = NDArray[np.float64]

WORK_TAG = "work"


def configuration(subject: Subject, radius: float, attack: str, path: str | None) -> RunConfig:
    """The paper's settings at the sizes that are asked for; radius in units of 1/255."""
    s = subject.sizes
    text = paper.settings(
        subject.dataset,
        subject.network,
        radius,
        attack=attack,
        n_train=s.n_train,
        n_val=s.n_val,
        n_test=s.n_test,
        seed=subject.seed,
    )
    overrides = [] if path is None or subject.dataset.endswith(".npz") else [f"data.path={path}"]
    return parse_config(text, where=subject.name, overrides=overrides)


def finite_settings(steps: int, seed: int) -> AdversarialTrainingConfig:
    """The paper's adversarial training in so many steps; its milestones stay at the same parts of the whole."""
    return AdversarialTrainingConfig(
        steps=steps,
        lr_every=max(1, round(paper.AT_EVERY * steps / paper.AT_STEPS)),
        evaluate_every=min(steps, max(1000, steps // 5)),
        seed=seed,
    )


class Laboratory:
    """Everything over one Gram matrix, made when it is first needed.

    Parameters
    ----------
    subject
        Dataset, network, seed and sizes.
    root
        Folder of the grid.
    path
        Where the dataset lies, if its name does not say.
    display
        Where to say what is done.
    keep_gram
        Leave the Gram matrix on disk.
    """

    def __init__(self, subject: Subject, root: Path, path: str | None, display: Display, keep_gram: bool) -> None:
        self.subject, self.root, self.path, self.display = subject, root, path, display
        self._keep = keep_gram
        self._store = root / "grams" / f"{subject.name}.zarr"
        self._scratch = root / WORK_TAG / f"{subject.name}.scratch"

    @cached_property
    def problem(self) -> Problem:
        """Data and network; the attack in its configuration is not used."""
        return Problem(configuration(self.subject, 8, "pgd", self.path))

    @cached_property
    def dynamics(self) -> ATDynamics:
        """The AT dynamics over the Gram matrix, which is built if it is not there."""
        solver, gram = self.problem.config.solver, self.problem.config.gram
        started = time.monotonic()
        self._store.parent.mkdir(parents=True, exist_ok=True)
        store = build_gram(
            self.problem.net, self.problem.train.raw, store=self._store, tile=gram.tile, dtype=gram.dtype
        )
        operator = operator_for_store(store, memory=int(solver.memory), operator=solver.operator, address=None)
        self.display.say(f"{self.subject.name}: Gram matrix in {time.monotonic() - started:.0f} s")
        shutil.rmtree(self._scratch, ignore_errors=True)  # of a start that was killed
        return ATDynamics(
            operator,
            self.problem.targets,
            ridge=solver.ridge,
            max_passes=solver.max_passes,
            memory=int(solver.memory),
            scratch=self._scratch,
        )

    def close(self, *, finished: bool) -> None:
        """Free the matrix; once the last cell is finished, delete it unless it is to be kept."""
        if "dynamics" in self.__dict__:
            self.dynamics.operator.close()
            del self.__dict__["dynamics"]
        shutil.rmtree(self._scratch, ignore_errors=True)
        if finished and not self._keep:
            shutil.rmtree(self._store, ignore_errors=True)

    def run(self, cell: Cell) -> dict[str, Any]:
        """Compute a cell, or what is missing of it."""
        config = configuration(self.subject, cell.radius, cell.attack, self.path)
        started = time.monotonic()
        method = {"ntk": self._ntk, "early-stopped": self._stopped, "adv-ntk": self._adv_ntk, "at": self._at}
        result, notes = method[cell.method](config)
        return {
            "dataset": self.subject.label,
            "network": self.subject.network,
            "radius": cell.radius,
            "attack": cell.attack,
            "method": cell.method,
            "seed": self.subject.seed,
            **asdict(self.subject.sizes),
            "data": self.problem.dataset.fingerprint,
            **result.as_dict(),
            **notes,
            "seconds": time.monotonic() - started,
        }

    def _ntk(self, config: RunConfig) -> tuple[MethodResult, dict[str, Any]]:
        return self._evaluate("ntk", self.problem.test, config.attack, lambda: self._kernel(self._row(-1))), {}

    def _stopped(self, config: RunConfig) -> tuple[MethodResult, dict[str, Any]]:
        attack, found = config.attack, []
        for i in range(len(paper.TIMES)):
            found.append(
                self._evaluate(f"val_t{i}", self.problem.val, attack, lambda i=i: self._kernel(self._row(i)))  # type: ignore[misc]
            )
        best = max(range(len(found)), key=lambda i: (found[i].robust.value, -i))
        result = self._evaluate(f"test_t{best}", self.problem.test, attack, lambda: self._kernel(self._row(best)))
        return result, {"t": paper.TIMES[best], "validation_robust": found[best].robust.value}

    def _adv_ntk(self, config: RunConfig) -> tuple[MethodResult, dict[str, Any]]:
        problem, train, tolerance = self.problem, config.train, config.solver.tolerance
        recipe = PaperRecipe(
            problem.train.x,
            problem.val.x,
            problem.val.y,
            bind_attack(config.attack),
            lr=train.lr,
            batch=train.batch,
            seed=train.seed,
            tolerance=tolerance,
        )
        trained = train_adv_ntk(
            recipe,
            lambda: self.dynamics,
            lambda: problem.predictor,
            len(problem.train.y),
            group=self._group(f"train-{config.attack.label}", asdict_of(config)),
            steps=train.steps,
        )

        def predictor() -> DifferentiablePredictor:
            return self._kernel(self.dynamics.coefficients(trained.varpi, tol=tolerance).value)

        return self._evaluate("adv-ntk", problem.test, config.attack, predictor), {"lr": train.lr}

    def _at(self, config: RunConfig) -> tuple[MethodResult, dict[str, Any]]:
        from advntk_dist.reproduce.finite import train_network

        settings = finite_settings(self.subject.sizes.at_steps, self.subject.seed)
        training = config.attack.model_copy(update={"name": "pgd"})  # never by the other attack
        identity = {"settings": settings.model_dump(mode="json"), "attack": training.model_dump(mode="json")}
        group = self._group(f"at-{settings.steps}-{training.label}", identity)
        network = train_network(self.problem, settings, training, group)
        name = f"at{settings.steps}"
        return self._evaluate(name, self.problem.test, config.attack, network), {"width": settings.width}

    def _kernel(self, coefficients: Array) -> DifferentiablePredictor:
        return self.problem.predictor.with_coefficients(coefficients)

    def _row(self, row: int) -> Array:
        """Coefficients (n, k) of uniform varpi = t at one of the times, or, for -1, at infinity; solved once."""
        times = [*paper.TIMES, float("inf")]
        table = Records(
            self._group("uniform", {"times": list(paper.TIMES)}), "c", len(times), self.problem.targets.shape
        )
        wanted = row % len(times)
        if table.read(wanted) is None:
            tolerance = self.problem.config.solver.tolerance
            for i, solution in enumerate(self.dynamics.trajectory(1.0, times, tolerance)):
                table.write(i, solution.value[None])
        values = table.read(wanted)
        if values is None:
            raise StoreDamagedError(f"{table.where}: row {wanted} is missing; remove this folder and run again")
        return np.asarray(values[0])

    def _evaluate(self, name: str, part: Part, attack: AttackConfig, predictor: Any) -> MethodResult:
        return evaluate(
            predictor,
            part.x,
            part.y,
            bind_attack(attack),
            norm=attack.norm,
            seed=attack.seed,
            group=self._group(f"evaluation-{attack.label}", {"attack": attack.model_dump(mode="json")}),
            name=name,
            batch=self.problem.config.evaluation.batch,
        )

    def _group(self, name: str, identity: dict[str, Any]) -> Any:
        path = self.root / WORK_TAG / self.subject.name / f"{name}.zarr"
        path.parent.mkdir(parents=True, exist_ok=True)
        return guarded_group(path, {"data": self.problem.dataset.fingerprint} | identity)


def asdict_of(config: RunConfig) -> dict[str, Any]:
    """What the training of Adv-NTK depends on, as short text."""
    text = config.model_dump_json(include={"attack", "train", "network", "solver"})
    return {"configuration": hashlib.sha256(text.encode()).hexdigest()[:16]}
