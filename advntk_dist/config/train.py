"""The sections of training and of evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from advntk_dist.config.values import Positive, Section, Seed

OF_CROSS_FIT = ("folds", "clean_weight", "validation")
"""Keys that the paper's recipe has no use for."""


class TrainConfig(Section):
    """Adv-NTK: the training of one effective time per sample."""

    recipe: Literal["cross-fit", "paper"] = "cross-fit"
    """cross-fit, or paper as published."""
    steps: Annotated[int, Field(ge=1)] = 30
    """By default 30 of cross-fit, 50 of the paper's recipe."""
    lr: Positive = 0.03
    """Of cross-fit the root mean square of the first change of log varpi; of the paper's the length of a step. By
    default 0.03 and 1."""
    batch: Annotated[int, Field(ge=1)] = 1000
    """Images a step; by default 1,000 and 128."""
    seed: Seed = 0
    """Seed of the batches and folds."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Of cross-fit: parts of the training images, of which each step leaves one out."""
    clean_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.4
    """Of cross-fit: weight of the error on clean images beside that on attacked ones."""
    validation: bool = False
    """Of cross-fit: whether every second step attacks validation images, with no fold left out. It raised robust
    accuracy with half as many of them as training images, and overfits them where they are fewer."""

    @model_validator(mode="before")
    @classmethod
    def _usual(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("recipe") == "paper":
            return {"steps": 50, "lr": 1.0, "batch": 128, **values}
        return values

    @model_validator(mode="after")
    def _possible(self) -> TrainConfig:
        usual = type(self).model_fields
        if self.recipe == "paper" and any(getattr(self, key) != usual[key].default for key in OF_CROSS_FIT):
            raise ValueError('folds, clean_weight and validation belong to recipe = "cross-fit"')
        return self


class EvaluationConfig(Section):
    """Times of the degeneration curve, among which early stopping chooses, and the batch of attacked images."""

    times: Annotated[tuple[Positive, ...], Field(strict=False)] = (
        1e-4,
        3e-4,
        1e-3,
        3e-3,
        1e-2,
        3e-2,
        1e-1,
        3e-1,
        1.0,
        10.0,
        100.0,
    )
    """Times of uniform training, ascending; infinity follows them."""
    batch: Annotated[int, Field(ge=1)] = 128
    """Test images attacked at once; each batch is committed when it is done."""
    curve: Annotated[int, Field(ge=1)] | None = None
    """The first so many test images draw the degeneration curve; by default all. The methods meet all of them."""
    tier: Literal["auto", "none", "standard", "full"] = "auto"
    """Stronger attacks that end a run: a tier (standard or full), none, or auto, which is standard where its predicted
    cost is below half of the run's."""
    tier_images: Annotated[int, Field(ge=1)] = 200
    """The first so many test images meet the tier; all of them, if there are fewer."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Ray actors that share the batches; by default one a GPU or a core of a cluster, and none on one machine, where
    one process uses all cores."""

    @field_validator("times")
    @classmethod
    def _ascending(cls, times: tuple[float, ...]) -> tuple[float, ...]:
        if not times or list(times) != sorted(set(times)):
            raise ValueError("must be at least one time, ascending, none twice")
        return times
