"""What a run does, counted: tiles, pairs, bytes, batches, image-steps. Pure arithmetic from its configuration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from advntk_dist.config import RunConfig
from advntk_dist.gram.plan import GramPlan, plan_gram


@dataclass(frozen=True)
class Images:
    """Shape of an image (H, W, C), and number of classes."""

    shape: tuple[int, int, int]
    classes: int


@dataclass(frozen=True)
class Outlook:
    """What no arithmetic knows beforehand: fractions of images that are classified correctly, and so attacked.

    Attributes
    ----------
    validation, test
        At each of the configured times, of validation and of test images.
    ntk, adv_ntk
        Of test images, at t = infinity and after Adv-NTK.
    chosen
        Place of the time at which early stopping stops.
    """

    validation: tuple[float, ...]
    test: tuple[float, ...]
    ntk: float = 1.0
    adv_ntk: float = 1.0
    chosen: int = 0

    @property
    def methods(self) -> tuple[float, float, float]:
        """Of test images, under the NTK, the early stop and Adv-NTK."""
        return self.ntk, self.test[self.chosen], self.adv_ntk


@dataclass(frozen=True)
class Scored:
    """Attacked images of a stage.

    Attributes
    ----------
    images, batches
        Images that are predicted, and batches of them.
    attacked, attacked_batches
        Images that are attacked, because they are classified correctly, and full batches of them.
    image_steps, queries
        Passes of one image over all training images: with a gradient, and without.
    """

    images: int = 0
    batches: int = 0
    attacked: int = 0
    attacked_batches: int = 0
    image_steps: int = 0
    queries: int = 0

    def __add__(self, other: Scored) -> Scored:
        return Scored(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


@dataclass(frozen=True)
class Counts:
    """What the stages of a run do.

    Attributes
    ----------
    gram
        The build, as it is checked before the first tile: tiles, pairs, bytes on disk and in memory.
    select, evaluate, train
        Attacked images; training attacks every image of its batches, right or wrong.
    scorings
        Attacked parts of each of the first two stages, (images, fraction that is right): batches of one do not wait
        for those of another.
    """

    gram: GramPlan
    select: Scored
    evaluate: Scored
    train: Scored
    scorings: dict[str, tuple[tuple[int, float], ...]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        stages = {name: asdict(getattr(self, name)) for name in ("select", "train", "evaluate")}
        gram = {k: v for k, v in asdict(self.gram).items() if k not in ("seconds", "tiles_total")}
        return {"gram": gram | {"memory_bytes": self.gram.memory_bytes}, **stages}


def count(config: RunConfig, images: Images, workers: int, outlook: Outlook) -> Counts:
    """Count what a run does, with so many workers of the build on one machine, if these images will be attacked."""
    d, e = config.data, config.evaluation
    curve = e.curve or d.n_test
    select = tuple((d.n_val, right) for right in outlook.validation)
    evaluate = [*((curve, right) for right in outlook.test), (d.n_test, outlook.ntk), (d.n_test, outlook.adv_ntk)]
    if curve < d.n_test:  # otherwise the curve has met these images at the chosen time
        evaluate.append((d.n_test, outlook.test[outlook.chosen]))
    return Counts(
        plan_build(config, images, workers),
        total(config, select),
        total(config, evaluate),
        _training(config),
        {"select": select, "evaluate": tuple(evaluate)},
    )


def plan_build(config: RunConfig, images: Images, workers: int) -> GramPlan:
    """The plan of the build, as it will be checked before the first tile."""
    n = config.data.n_train
    return plan_gram(
        {
            "gram.tile": min(config.gram.tile, n),
            "gram.dtype": config.gram.dtype,
            "kinds": ["ntk"],
            "columns": None,
            "n": n,
            "n_columns": n,
            "image_shape": list(images.shape),
        },
        workers=workers,
    )


def total(config: RunConfig, parts: Iterable[tuple[int, float]]) -> Scored:
    """Attacked images of several parts, each (images, fraction that is right)."""
    batch, passes = config.evaluation.batch, config.attack.spec.cost(config.attack)
    found = Scored()
    for images, right in parts:
        attacked = round(images * right)
        found += Scored(
            images,
            -(-images // batch),
            attacked,
            -(-attacked // batch),
            attacked * passes.steps,
            images + attacked * passes.queries,
        )
    return found


def _training(config: RunConfig) -> Scored:
    passes = config.attack.spec.cost_in_training(config.attack)
    batches = sum(steps * -(-images // config.evaluation.batch) for steps, images in step_images(config))
    every = sum(steps * images for steps, images in step_images(config))
    return Scored(every, batches, every, batches, every * passes.steps, every * passes.queries)


def step_images(config: RunConfig) -> tuple[tuple[int, int], ...]:
    """Training steps of each kind, and the images that one attacks: of a fold, and of the validation images."""
    t, d = config.train, config.data
    if t.recipe == "paper":
        return ((t.steps, min(t.batch, d.n_val)),)
    fold = min(t.batch, max(1, d.n_train // min(t.folds, d.n_train)))
    on_validation = (t.steps + 1) // 2 if t.validation else 0
    return ((t.steps - on_validation, fold), (on_validation, min(fold, d.n_val)))


def longest(parts: Sequence[tuple[int, float]], batch: int, workers: int) -> tuple[int, int]:
    """Batches (predicted, attacked) that one of the workers gets after the other, over all parts."""
    predicted = sum(_parts_of(_parts_of(images, batch), workers) for images, _ in parts)
    attacked = sum(_parts_of(_parts_of(round(images * right), batch), workers) for images, right in parts)
    return predicted, attacked


def _parts_of(whole: int, part: int) -> int:
    return -(-whole // part)
