"""The work on one subject: one Gram matrix, what every cell over it shares, and its finite networks."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import zarr

from advntk_dist.attacks.registry import DEFAULT, bind_attack
from advntk_dist.config import AttackConfig, RunConfig, paper
from advntk_dist.config.finite_width import AdversarialTrainingConfig
from advntk_dist.environment import environment
from advntk_dist.errors import StoreDamagedError
from advntk_dist.evaluation import MethodResult
from advntk_dist.evaluation.evaluate import evaluate
from advntk_dist.finite.adversarial_training import optimiser, train_adversarially
from advntk_dist.finite.networks import FiniteNetwork, flatten, unflatten
from advntk_dist.finite.predictor import FinitePredictor
from advntk_dist.gram import GramStore
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.pipeline.events import EventLog
from advntk_dist.pipeline.problem import Problem
from advntk_dist.pipeline.rundir import RunDirectory
from advntk_dist.pipeline.scoring import CommittedCoefficients
from advntk_dist.pipeline.solving import Solving
from advntk_dist.progress import Display, LateStage
from advntk_dist.reproduce.grid import Cell, GridPoint, configuration, finite_settings, training_identity
from advntk_dist.storage import Records, guarded_group
from advntk_dist.training import PaperRecipe, StepRecord, train_adv_ntk

WORK_TAG = "work"


@dataclass(frozen=True)
class SubjectDirectory(RunDirectory):
    """What the work on one subject has committed; its Gram matrix lies beside those of others."""

    grid: Path

    @property
    def gram(self) -> Path:
        """The Gram store."""
        return self.grid / "grams" / f"{self.root.name}.zarr"


class Laboratory(Solving):
    """Everything over one Gram matrix, which is built when it is first needed; a context manager.

    On leaving it, workers and memory are freed, and the matrix is deleted if nothing was raised.

    Parameters
    ----------
    subject
        Dataset, network, seed and sizes.
    root
        Folder of the grid.
    path
        Where the dataset lies, if its name does not say.
    display
        Where to show what is done.
    keep_gram
        Leave the Gram matrix on disk.
    workers
        Ray actors that share the batches of the kernel methods; see ``evaluation.workers``. The finite network of
        ``at`` is trained and attacked in this process.
    address
        Ray cluster, None for this machine.
    """

    def __init__(
        self,
        subject: GridPoint,
        root: Path,
        path: str | None,
        display: Display,
        keep_gram: bool = False,
        *,
        workers: int | None = None,
        address: str | None = None,
    ) -> None:
        # The attack of this configuration is not used: every cell has its own.
        problem = Problem(configuration(subject, 8, DEFAULT.name, path, workers))
        self._work = root / WORK_TAG / subject.name
        folder = SubjectDirectory(self._work, root)
        super().__init__(problem, folder, EventLog(folder.events), display, address)
        self.identity = {"data": problem.dataset.fingerprint}
        self.subject, self._path, self._keep = subject, path, keep_gram
        self._matrix = folder.gram

    @cached_property
    def store(self) -> GramStore:
        """The Gram store, built if it is not there."""
        self._matrix.parent.mkdir(parents=True, exist_ok=True)
        return self.gram()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if "_dynamics" in self.__dict__:
            self._dynamics.operator.close()
            del self.__dict__["_dynamics"]
        shutil.rmtree(self._work / "scratch", ignore_errors=True)
        if kind is None and not self._keep:
            shutil.rmtree(self._matrix, ignore_errors=True)

    def run(self, cell: Cell) -> dict[str, Any]:
        """Compute a cell, or what is missing of it."""
        config = configuration(self.subject, cell.radius, cell.attack, self._path)
        self._work.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        method = {"ntk": self._ntk, "early-stopped": self._stopped, "adv-ntk": self._adv_ntk, "at": self._at}
        with self.events.stage(cell.title):
            result, notes = method[cell.method](config, cell.title)
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
            "environment": environment(),
        }

    def _ntk(self, config: RunConfig, title: str) -> tuple[MethodResult, dict[str, Any]]:
        table, test = self.uniform(), self.problem.test
        with self.display.stage(title, len(test.y), "images") as advance:
            last = CommittedCoefficients(table, len(paper.TIMES))
            return self._evaluate("ntk", test, last, config.attack, advance), {}

    def _stopped(self, config: RunConfig, title: str) -> tuple[MethodResult, dict[str, Any]]:
        table, attack, times = self.uniform(), config.attack, paper.TIMES
        val, test = self.problem.val, self.problem.test
        with self.display.stage(title, len(times) * len(val.y) + len(test.y), "images") as advance:
            found = [
                self._evaluate(f"val_t{i}", val, CommittedCoefficients(table, i), attack, advance)
                for i in range(len(times))
            ]
            best = max(range(len(found)), key=lambda i: (found[i].robust.value, -i))
            result = self._evaluate(f"test_t{best}", test, CommittedCoefficients(table, best), attack, advance)
        return result, {"t": times[best], "validation_robust": found[best].robust.value}

    def _adv_ntk(self, config: RunConfig, title: str) -> tuple[MethodResult, dict[str, Any]]:
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
        group = self._group(f"train-{config.attack.label}", training_identity(config))
        with LateStage(self.display, f"{title}, training", "steps") as shown:

            def on_step(step: int, record: StepRecord) -> None:
                shown.reach(step, train.steps)
                shown.reach(step + 1, train.steps)
                self.events.write("step", step=step + 1, loss=record.loss, robust=record.robust)

            trained = train_adv_ntk(
                recipe,
                lambda: self.dynamics,
                lambda: problem.predictor,
                len(problem.train.y),
                group=group,
                steps=train.steps,
                on_step=on_step,
            )
        table = Records(group, "coefficients", 1, problem.targets.shape)
        if table.read(0) is None:
            table.write(0, self.dynamics.coefficients(trained.varpi, tol=tolerance).value[None])
        with self.display.stage(title, len(problem.test.y), "images") as advance:
            last = CommittedCoefficients(table, 0)
            result = self._evaluate("adv-ntk", problem.test, last, config.attack, advance)
        return result, {"lr": train.lr}

    def _at(self, config: RunConfig, title: str) -> tuple[MethodResult, dict[str, Any]]:
        from advntk_dist.reproduce.laboratory import train_network

        settings = finite_settings(self.subject.sizes.at_steps, self.subject.seed)
        training = config.attack.model_copy(update={"name": DEFAULT.name})  # never by the other attack
        identity = {"settings": settings.model_dump(mode="json"), "attack": training.model_dump(mode="json")}
        group = self._group(f"at-{settings.steps}-{training.label}", identity)
        self.release()  # the cores are this process's now
        with LateStage(self.display, f"{title}, training", "steps") as shown:

            def on_step(step: int) -> None:
                shown.reach(step, settings.steps)

            network = train_network(self.problem, settings, training, group, on_step)
        attack, test = config.attack, self.problem.test
        with self.display.stage(title, len(test.y), "images") as advance:
            result = evaluate(
                network,
                test.x,
                test.y,
                bind_attack(attack),
                norm=attack.norm,
                seed=attack.seed,
                group=self._outcomes(attack),
                name=f"at{settings.steps}",
                batch=self.config.evaluation.batch,
                on_batch=advance,
            )
        return result, {"width": settings.width}

    def uniform(self) -> Records:
        """Coefficients (times, n, k) of uniform varpi = t, the last one at t = infinity; solved once."""
        times = [*paper.TIMES, float("inf")]
        group = self._group("uniform", {"times": list(paper.TIMES)})
        table = Records(group, "c", len(times), self.problem.targets.shape)
        if any(table.read(i) is None for i in range(len(times))):
            dynamics = self.dynamics  # made before the bar, as the Gram matrix has its own
            with self.display.stage("Uniform dynamics", 1, "solve") as advance:
                for i, solution in enumerate(dynamics.trajectory(1.0, times, self.config.solver.tolerance)):
                    table.write(i, solution.value[None])
                advance(1, True)
        return table

    def _outcomes(self, attack: AttackConfig) -> Any:
        return self._group(f"evaluation-{attack.label}", {"attack": attack.model_dump(mode="json")})

    def _group(self, name: str, identity: dict[str, Any]) -> Any:
        return guarded_group(self._work / f"{name}.zarr", self.identity | identity)


def train_network(
    problem: Problem,
    settings: AdversarialTrainingConfig,
    attack: AttackConfig,
    group: zarr.Group,
    on_step: Callable[[int], None] = lambda step: None,
) -> Callable[[], Any]:
    """Train a network, or go on with it, to its last step; ``on_step`` hears how many steps are done.

    Returns
    -------
    predictor
        Makes the trained network as attacks see it.

    Raises
    ------
    SolverError
        If the loss overflows.
    StoreDamagedError
        If a checkpoint fails its checksum.
    """
    spec, x = problem.net.spec, problem.train.x
    network = FiniteNetwork(
        spec.name,
        settings.width,
        spec.classes,
        settings.W_std,
        settings.b_std,
        spec.activation,
        settings.parameterization,
    )
    batch = problem.config.evaluation.batch
    val = problem.val.x, problem.val.y
    # The test images wait for the evaluation of the cell: one of the validation images stands in for them here.
    nobody = val[0][:1], val[1][:1]
    train = x, problem.train.y
    train_adversarially(
        network, settings.seed, train, val, nobody, settings, attack, group=group, batch=batch, on_step=on_step
    )

    def predictor() -> FinitePredictor:
        with kernel_scope():
            params = network.init(settings.seed, x.shape[1:], x.dtype.name)
            like = params, optimiser(settings).init(params)
        saved = Records(group, "state", 2, (len(flatten(like)) + 1,))
        rows = [row[0] for row in (saved.read(place) for place in range(2)) if row is not None]
        if not rows:
            raise StoreDamagedError(f"{saved.where}: no state is committed; remove this folder and run again")
        newest = max(rows, key=lambda row: float(row[-1]))
        with kernel_scope():
            trained, _ = unflatten(newest[:-1], like)
        return FinitePredictor(network, trained, batch)

    return predictor
