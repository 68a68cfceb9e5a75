"""Configuration of ``advntk finite-width``: that of a run, with a section for each of the two experiments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from advntk_dist.attacks.registry import PLAIN
from advntk_dist.config.sections import Positive, RunConfig, Section, Seed
from advntk_dist.spec import parse_name

Whole = Annotated[int, Field(ge=1)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class FlowConfig(Section):
    """The theorem's setting: gradient flow outside and inside, networks of several widths."""

    widths: Annotated[tuple[Whole, ...], Field(strict=False)] = (64, 128, 256, 512, 1024)
    """Widths that are compared, ascending."""
    seeds: Annotated[int, Field(ge=2)] = 4
    """Networks of each width."""
    n_train: Whole = 20
    """The first so many training images; the flow's cost grows with their square."""
    n_test: Whole = 20
    """The first so many test images."""
    end: Positive = 0.3
    """Last time t of the outer flow of 1/2 || f(X) - Y ||^2, summed over images."""
    points: Annotated[int, Field(ge=2)] = 12
    """Times at which networks are compared, 0 among them; the rest in geometric steps over three decades."""
    eta: Size = 1.0
    """Rate of the inner flow; 0 is standard training."""
    inner_time: Size = 0.1
    """Length S of the inner flow."""
    inner_steps: Whole = 4
    """Runge-Kutta steps of the inner flow."""
    step: Annotated[float, Field(gt=0, le=2)] = 1.0
    """First step of the outer flow times the largest eigenvalue that drives it; Runge-Kutta 4 is stable up to 2.8."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Largest change under halved steps, as a part of the gap that is measured; steps are halved until it holds."""
    dtype: Literal["float32", "float64"] = "float64"
    """What the flow is computed in: float32 or float64."""

    @field_validator("widths")
    @classmethod
    def _ascending(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if len(widths) < 2 or list(widths) != sorted(set(widths)):
            raise ValueError("must be at least two widths, ascending, none twice")
        return widths


class AdversarialTrainingConfig(Section):
    """The paper's baseline: PGD adversarial training of finite networks with squared error, by SGD."""

    width: Whole = 256
    """Units or channels of each layer."""
    seeds: Whole = 1
    """Networks that are trained."""
    steps: Whole = 20_000
    """Steps of SGD."""
    batch: Whole = 128
    """Images a step."""
    lr: Positive = 0.1
    """First learning rate."""
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    """What the learning rate is multiplied by."""
    lr_every: Whole = 8_000
    """Steps after which the learning rate is multiplied by ``lr_decay``, again and again."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: Size = 5e-4
    """Weight decay of SGD."""
    evaluate_every: Whole = 1_000
    """Steps between evaluations; each is a checkpoint as well."""
    seed: Seed = 0
    """Seed of the first network; the others follow."""
    parameterization: Literal["ntk", "standard"] = "standard"
    """ntk or standard."""
    W_std: Positive = 0.577
    """Standard deviation of the weights; in the standard parametrisation 1/sqrt(3) is PyTorch's default."""
    b_std: Size = 0.0
    """Standard deviation of the biases."""


class FiniteWidthConfig(RunConfig):
    """Everything that ``advntk finite-width`` needs: the sections of a run are the infinite-width job beside it."""

    presets: ClassVar[str] = "presets/finite-width"

    flow: FlowConfig = FlowConfig()
    finite: AdversarialTrainingConfig = AdversarialTrainingConfig()

    @model_validator(mode="before")
    @classmethod
    def _attack_by_default(cls, values: Any) -> Any:
        attack = values.get("attack", {}) if isinstance(values, Mapping) else None
        return {**values, "attack": {"name": PLAIN.name, **attack}} if isinstance(attack, Mapping) else values

    @classmethod
    def _usual_loss(cls, train: Any) -> str | None:  # noqa: ARG003
        """The only one that attacks on finite networks know."""
        return "squared-error"

    @model_validator(mode="after")
    def _possible(self) -> FiniteWidthConfig:
        if parse_name(self.network.name) is None:
            raise ValueError(f"network.name: {self.network.name!r} has no widths; give mlp-, cnn- or resnet-x")
        if self.attack.name != PLAIN.name:
            raise ValueError(f"attack.name: finite networks are trained by {PLAIN.name!r}, not {self.attack.name!r}")
        for key, value, wanted in (
            ("attack.loss", self.attack.loss, "squared-error"),
            ("attack.restarts", self.attack.restarts, 1),
        ):
            if value != wanted:
                raise ValueError(f"{key}: attacks on finite networks know {wanted!r} only, got {value!r}")
        if self.attack.norm == "l1":
            raise ValueError("attack.norm: attacks on finite networks know 'linf' and 'l2', got 'l1'")
        for key, asked, there in (
            ("flow.n_train", self.flow.n_train, self.data.n_train),
            ("flow.n_test", self.flow.n_test, self.data.n_test),
            ("finite.batch", self.finite.batch, self.data.n_train),
            ("finite.evaluate_every", self.finite.evaluate_every, self.finite.steps),
        ):
            if asked > there:
                raise ValueError(f"{key} is {asked}, more than there are ({there}); ask for fewer")
        return self

    def infinite(self) -> RunConfig:
        """The infinite-width job on the same data."""
        return RunConfig.model_validate({name: getattr(self, name) for name in RunConfig.model_fields})
