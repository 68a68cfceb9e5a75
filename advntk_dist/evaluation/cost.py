"""What a sequence of attacks will cost, from the measured time of one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import Images
from advntk_dist.attacks.registry import Passes
from advntk_dist.attacks.request import targets
from advntk_dist.config import AttackConfig
from advntk_dist.evaluation.evaluator import Array
from advntk_dist.text import duration

WORTH = 0.5
"""Part of a run's seconds that the tier which ends it may take by default."""


@dataclass(frozen=True)
class Priced:
    """What an attack of a sequence asks for, and whether it may meet every image that is classified correctly."""

    passes: Passes
    meets_all: bool

    @classmethod
    def of(cls, attack: AttackConfig) -> Priced:
        """Of one of our attacks."""
        return cls(attack.spec.cost(attack), attack.spec.meets_all)


@dataclass(frozen=True)
class BatchSeconds:
    """Unit costs of evaluation: seconds of a pass of one batch over all training images.

    Attributes
    ----------
    batch
        Number of images in the batch.
    query_seconds, step_seconds
        Seconds of a pass for values alone, and of one for values and gradients.
    """

    batch: int
    query_seconds: float
    step_seconds: float

    def of(self, passes: Passes) -> float:
        """Seconds of an attack that asks for so many passes, on one batch."""
        return passes.steps * self.step_seconds + passes.queries * self.query_seconds


@dataclass(frozen=True)
class Timed:
    """Task: the seconds of a value pass and of a pass with gradients on one batch, (m, 2) with equal rows.

    Attributes
    ----------
    repeats
        Passes of each kind, of which the quickest counts; one more before them compiles.
    """

    repeats: int = 2

    def __call__(
        self,
        predictor: DifferentiablePredictor,
        x: Images,
        y: NDArray[np.int64],
        indices: NDArray[np.int64],
    ) -> Array:
        """Time the passes of these images (m, H, W, C)."""
        wanted = targets(y, predictor.predict(x).shape[1], len(x))

        def seconds(call: Callable[[], Any]) -> float:
            call()
            found = []
            for _ in range(self.repeats):
                started = time.perf_counter()
                call()
                found.append(time.perf_counter() - started)
            return min(found)

        row = [seconds(lambda: predictor.predict(x)), seconds(lambda: predictor.value_and_slope(x, wanted))]
        return np.tile(row, (len(indices), 1))


@dataclass(frozen=True)
class Cost:
    """Image-steps (values with gradients), queries (values alone), and seconds."""

    steps: int
    queries: int
    seconds: float

    def as_dict(self) -> dict[str, float]:
        """Plain values, for JSON."""
        return {"image_steps": self.steps, "queries": self.queries, "seconds": round(self.seconds, 3)}

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.steps + other.steps, self.queries + other.queries, self.seconds + other.seconds)

    def __str__(self) -> str:
        return f"{self.steps:,} image-steps and {self.queries:,} queries, {duration(self.seconds)}"


def predict_cost(
    attacks: Sequence[Priced],
    images: int,
    calibration: BatchSeconds,
    *,
    workers: int = 1,
    clean: float = 1.0,
    robust: float = 1.0,
) -> Cost:
    """What a sequence of attacks costs on so many images.

    With ``clean`` and ``robust`` left at 1 it is a bound: no attack succeeds on any image. With the accuracies of
    an earlier evaluation under a plain PGD of the same radius it is an expectation: images that are misclassified
    meet no attack, and those that PGD breaks only the attacks that meet all.

    Parameters
    ----------
    attacks
        In order.
    images
        How many.
    calibration
        Measured on one worker.
    workers
        That share the batches.
    clean, robust
        Fractions of images that are classified correctly, and that the sweep of FGSM and PGD leaves.
    """
    size = calibration.batch
    steps, queries = 0, images
    seconds = -(-images // size) * calibration.query_seconds / workers
    for attack in attacks:
        alive = round(images * (clean if attack.meets_all else robust))
        passes, batches = attack.passes, -(-alive // size)
        steps, queries = steps + passes.steps * alive, queries + passes.queries * alive
        seconds += -(-batches // workers) * calibration.of(passes)
    return Cost(steps, queries, seconds)
