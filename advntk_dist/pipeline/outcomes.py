"""Outcomes of a run's images under attacks: where batches are judged, and where what comes of them is committed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.attacks.registry import bind_attack
from advntk_dist.config import AttackConfig
from advntk_dist.evaluation import MethodResult
from advntk_dist.evaluation.evaluate import evaluate
from advntk_dist.evaluation.evaluator import Evaluator, InProcess
from advntk_dist.pipeline.coefficients import CommittedCoefficients
from advntk_dist.pipeline.context import Part, RunContext
from advntk_dist.pipeline.worst_case import foreign_outcomes_named
from advntk_dist.predictor import KernelPredictor
from advntk_dist.progress import Advance
from advntk_dist.storage import guarded_group

if TYPE_CHECKING:
    from advntk_dist.evaluation.remote import EvaluationPool

Array = NDArray[np.float64]


class EvaluationWorkers:
    """Where batches are judged: in this process, or on Ray actors, started at the first batch and ended with the run.

    Parameters
    ----------
    context
        The run; runs of other attacks on the same data and network may share its workers.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._pool: EvaluationPool | None = None

    @cached_property
    def are_actors(self) -> bool:
        """Whether batches go to Ray actors: asked for, on a cluster, or with several GPUs."""
        if self._context.config.evaluation.workers is not None or self._context.address is not None:
            return True
        import jax

        return jax.default_backend() == "gpu" and jax.local_device_count() > 1

    def count(self) -> int:
        """How many batches are judged at a time; where that is the cluster's choice, Ray is asked for its cores."""
        if not self.are_actors:
            return 1
        if self._context.config.evaluation.workers is not None:
            return self._context.config.evaluation.workers
        from advntk_dist.distributed.session import cluster_workers, ray_session

        with ray_session(self._context.address):
            gpus, cpus = cluster_workers()
        return gpus or cpus or 1  # an autoscaler may have brought no node yet

    def stop(self) -> None:
        """End the actors, whose cores something else needs now; the next batch starts them again."""
        if self._pool is not None:
            self._pool.release()

    def evaluator(self, coefficients: Callable[[], Array], part: Part) -> Evaluator:
        """Judges the images of a part under coefficients (n, k), which are asked for only if a batch is missing."""
        context, settings = self._context, self._context.config.evaluation

        def predictor() -> KernelPredictor:
            context.say_once("compiling the attack")
            return context.problem.predictor.with_coefficients(coefficients())

        if not self.are_actors:
            return InProcess(predictor, part.x, part.y)
        if self._pool is None:
            from advntk_dist.evaluation.remote import EvaluationPool

            self._pool = EvaluationPool(
                context.problem.net,
                context.problem.train.x,
                settings.batch,
                workers=settings.workers,
                address=context.address,
                on_event=lambda event: context.events.write(**event),
            )
            context.close_at_end(self._pool.close)
        return self._pool.evaluator(coefficients, part.x, part.y)


class Outcomes:
    """The attacked images of a run: each batch is judged once, and committed.

    Parameters
    ----------
    context
        The run.
    workers
        Where batches are judged.
    """

    def __init__(self, context: RunContext, workers: EvaluationWorkers) -> None:
        self.context, self.workers = context, workers

    def predictor(self, coefficients: Array) -> KernelPredictor:
        """A predictor with these coefficients (n, k), in this process."""
        return self.context.problem.predictor.with_coefficients(coefficients)

    def group(self, attack: AttackConfig) -> zarr.Group:
        """Outcomes under one attack: a folder for each that was ever asked for."""
        return self.group_at(attack.label, {"attack": attack.described()})

    def group_at(self, label: str, settings: dict[str, Any]) -> zarr.Group:
        """The folder of outcomes of this name; StoreDamagedError if it holds those of other settings."""
        place = self.context.folder.evaluation / label
        with foreign_outcomes_named(place):
            return guarded_group(place, self.context.identity | settings)

    def evaluate(
        self, name: str, part: Part, coefficients: CommittedCoefficients, attack: AttackConfig, advance: Advance
    ) -> MethodResult:
        """Attack every image of a part under coefficients, or read what is committed of that.

        Parameters
        ----------
        name
            Name of the committed outcomes.
        part
            The images.
        coefficients
            What is attacked; outcomes of any others do not count.
        attack
            By which attack.
        advance
            Called with the images of each batch.

        Raises
        ------
        EvaluationError
            If a batch cannot be judged.
        StoreError
            If one cannot be committed.
        """
        from advntk_dist.distributed.session import ray_announced

        context = self.context

        def on_batch(images: int, fresh: bool) -> None:
            advance(images, fresh)
            if fresh:
                context.events.write("batch", name=name, images=images)

        with ray_announced(context.display.say):
            return evaluate(
                lambda: self.predictor(coefficients()),
                part.x,
                part.y,
                bind_attack(attack),
                norm=attack.norm,
                seed=attack.seed,
                group=self.group(attack),
                name=name,
                batch=context.config.evaluation.batch,
                on_batch=on_batch,
                evaluator=self.workers.evaluator(coefficients, part),
                of=coefficients.seal,
            )
