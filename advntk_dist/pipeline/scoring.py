"""Outcomes of a run's images under attacks: what is judged where, and where it is committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.attacks.registry import bind_attack
from advntk_dist.config import AttackConfig
from advntk_dist.errors import StoreDamagedError
from advntk_dist.evaluation import MethodResult
from advntk_dist.evaluation.evaluate import evaluate
from advntk_dist.evaluation.evaluator import Evaluator, InProcess
from advntk_dist.pipeline.events import EventLog
from advntk_dist.pipeline.images import require_same_images
from advntk_dist.pipeline.problem import Part, Problem
from advntk_dist.pipeline.rundir import RunDirectory, digest
from advntk_dist.pipeline.worst_case import foreign_outcomes_named
from advntk_dist.predictor import KernelPredictor
from advntk_dist.progress import Display
from advntk_dist.storage import Records, guarded_group

if TYPE_CHECKING:
    from advntk_dist.evaluation.remote import EvaluationPool

Array = NDArray[np.float64]


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


class Scoring:
    """The attacked images of one run in its directory; a context manager that ends the workers it started.

    Parameters
    ----------
    problem
        Data, network and attack.
    folder
        The claimed run directory.
    events, display
        Where to write and show what happens.
    address
        Ray cluster, None for this machine.

    Raises
    ------
    ImagesChangedError
        If the directory has results of other images.
    """

    def __init__(
        self, problem: Problem, folder: RunDirectory, events: EventLog, display: Display, address: str | None
    ) -> None:
        self.problem, self.folder, self.events, self.display = problem, folder, events, display
        self.config, self.address = problem.config, address
        require_same_images(folder, problem.dataset)
        self.identity = {"configuration": digest(self.config), "data": problem.dataset.fingerprint}
        self._pool: EvaluationPool | None = None
        self._said: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _say_once(self, text: str) -> None:
        """Say what takes its time at the first use alone."""
        if text not in self._said:
            self._said.add(text)
            self.display.say(text)

    def release(self) -> None:
        """End the workers, whose cores something else needs now; the next batch starts them again."""
        if self._pool is not None:
            self._pool.release()

    @cached_property
    def spreads(self) -> bool:
        """Whether batches go to Ray actors: asked for, on a cluster, or with several GPUs."""
        if self.config.evaluation.workers is not None or self.address is not None:
            return True
        import jax

        return jax.default_backend() == "gpu" and jax.local_device_count() > 1

    @property
    def workers(self) -> int:
        """How many batches are judged at a time; where that is the cluster's choice, what the actors will be."""
        if not self.spreads:
            return 1
        if self.config.evaluation.workers is not None:
            return self.config.evaluation.workers
        from advntk_dist.distributed.session import cluster_workers, ray_session

        with ray_session(self.address):
            gpus, cpus = cluster_workers()
        return gpus or cpus or 1  # an autoscaler may have brought no node yet

    def evaluator(self, coefficients: Callable[[], Array], part: Part) -> Evaluator:
        """Judges the images of a part under coefficients (n, k), which are asked for only if a batch is missing."""
        if not self.spreads:

            def predictor() -> KernelPredictor:
                self._say_once("compiling the attack")
                return self.predictor(coefficients())

            return InProcess(predictor, part.x, part.y)
        if self._pool is None:
            from advntk_dist.evaluation.remote import EvaluationPool

            def on_event(event: dict[str, Any]) -> None:
                details = dict(event)
                self.events.write(details.pop("event"), **details)

            e = self.config.evaluation
            self._pool = EvaluationPool(
                self.problem.net,
                self.problem.train.x,
                e.batch,
                workers=e.workers,
                address=self.address,
                on_event=on_event,
            )
        return self._pool.evaluator(coefficients, part.x, part.y)

    def predictor(self, coefficients: Array) -> KernelPredictor:
        """A predictor with these coefficients."""
        return self.problem.predictor.with_coefficients(coefficients)

    def _evaluate(
        self, name: str, part: Part, coefficients: CommittedCoefficients, attack: AttackConfig, advance: Any
    ) -> MethodResult:
        def on_batch(images: int, fresh: bool) -> None:
            advance(images, fresh)
            if fresh:
                self.events.write("batch", name=name, images=images)

        from advntk_dist.distributed.session import ray_announced

        with ray_announced(self.display.say):
            return evaluate(
                lambda: self.predictor(coefficients()),
                part.x,
                part.y,
                bind_attack(attack),
                norm=attack.norm,
                seed=attack.seed,
                group=self._outcomes(attack),
                name=name,
                batch=self.config.evaluation.batch,
                on_batch=on_batch,
                evaluator=self.evaluator(coefficients, part),
                of=coefficients.seal,
            )

    def _outcomes(self, attack: AttackConfig) -> zarr.Group:
        """Outcomes under one attack: a folder for each that was ever asked for."""
        place = self.folder.evaluation / attack.label
        with foreign_outcomes_named(place):
            return guarded_group(place, self.identity | {"attack": attack.described()})
