"""The sections of a configuration, all of them together, and what tells one run from another."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, field_validator, model_validator

from advntk_dist.attacks import registry
from advntk_dist.errors import NetworkError, RequestError
from advntk_dist.spec import Activation, BackendChoice, Loss, Norm, parse_name, step_length


def fraction(value: Any) -> Any:
    """Read "8/255" as the number that it is."""
    if isinstance(value, str) and value.count("/") == 1:
        above, below = value.split("/")
        try:
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError):
            return value  # pydantic says what is wrong with it
    return value


def no_bool(value: Any) -> Any:
    """Keep pydantic from reading true as 1 byte."""
    return str(value) if isinstance(value, bool) else value


Pixels = Annotated[float, BeforeValidator(fraction), Field(allow_inf_nan=False)]
"""A distance between images whose pixels span a range of 1; a fraction such as "8/255" is understood."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Section(BaseModel):
    """Base of all sections: frozen; unknown keys and other types (true or "3" for a number) are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, strict=True, use_attribute_docstrings=True
    )


class DataConfig(Section):
    """Which images, and how many of them."""

    name: str = "digits"
    """A dataset's name, or a path."""
    path: str | None = None
    """Folder or archive of the dataset, where the name alone does not say."""
    n_train: Annotated[int, Field(ge=2)] = 1000
    """Training images, the rows of the Gram matrix."""
    n_val: Annotated[int, Field(ge=1)] = 300
    """Validation images, on which early stopping chooses."""
    n_test: Annotated[int, Field(ge=1)] = 497
    """Test images, of which the results are."""
    seed: Seed = 0
    """Seed of the split into training, validation and test images."""
    resize: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Edge in pixels that images are brought to: shorter side scaled, antialiased, then the middle square."""
    class_subset: Annotated[tuple[str | Annotated[int, Field(ge=0)], ...], Field(strict=False)] | None = None
    """Names or numbers of the classes to keep; by default all."""
    duplicates: Literal["warn", "drop", "refuse"] = "warn"
    """What to do with equal images: warn, drop (before the split is drawn; the first one stays), or refuse."""

    @field_validator("class_subset")
    @classmethod
    def _two_classes(cls, classes: tuple[str | int, ...] | None) -> tuple[str | int, ...] | None:
        if classes is not None and len(set(classes)) != len(classes):
            raise ValueError("names a class twice")
        if classes is not None and len(classes) < 2:
            raise ValueError("must be at least two classes")
        return classes


class NetworkConfig(Section):
    """The infinitely wide network."""

    name: str = "mlp-3"
    """mlp-x, cnn-x, resnet-18, resnet-34, or package.module:function."""
    W_std: Positive = 1.76
    """Standard deviation of the weights."""
    b_std: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.18
    """Standard deviation of the biases."""
    activation: Activation = "relu"
    """relu, gelu, erf or sigmoid."""
    backend: BackendChoice = "auto"
    """What computes the kernel: neural-tangents or xla; auto takes the fastest that can."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            parse_name(name)
        except NetworkError as error:
            raise ValueError(str(error).removeprefix("network.name: ")) from error
        return name


class GramConfig(Section):
    """How the Gram matrix is computed and stored."""

    tile: Annotated[int, Field(ge=1)] = 2048
    """Edge of a tile, in images."""
    dtype: Literal["float32", "float64"] = "float32"
    """What the kernel is computed and stored in: float32 or float64."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Ray actors; by default one a GPU, or one a CPU where there is none."""


class SolverConfig(Section):
    """How products with the Gram matrix become coefficients."""

    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """Bound on the relative error of coefficients, Frobenius norm; within steps of cross-fit 1,000 times it, up to
    1e-3, which leaves trainings where they were."""
    memory: Annotated[ByteSize, BeforeValidator(no_bool), Field(gt=0)] = ByteSize(4 * 2**30)
    """Memory for the matrix (held whole if it fits half of this) and for Krylov bases; "4GiB" is understood."""
    ridge: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Added to the diagonal at t = infinity, relative to the mean of the diagonal."""
    max_passes: Annotated[int, Field(ge=1)] = 1000
    """Passes over the matrix after which a solve gives up."""
    operator: Literal["auto", "memory", "threads", "dask-on-ray", "resident"] = "auto"
    """Where products with the matrix are computed; auto chooses from the memory there is."""


_OTHER_LOSSES = ", ".join(
    f"for {attack.name} {attack.usual_loss}"
    for attack in registry.ATTACKS.values()
    if attack.usual_loss != registry.LINEAR.usual_loss
)


class AttackConfig(Section):
    """The attack of training, selection and evaluation; training takes only the first step of the linearised one."""

    name: str = Field(
        default=registry.LINEAR.name,
        description=f"{', '.join(registry.ATTACKS)}, or package.module:attack for one of your own; by default "
        f"{registry.LINEAR.name}, for a loss or restarts that it does not take {registry.PLAIN.name}.",
    )
    radius: Annotated[Pixels, Field(ge=0)] = 0.2
    """Largest change of an image, where the range of a pixel is 1; "8/255" is understood."""
    steps: Annotated[int, Field(ge=0)] = 10
    """Gradient steps a start; the linearised attack takes them where the margin is not linear."""
    step_size: Annotated[Pixels, Field(ge=0)] | None = None
    """Length of a step, where the range of a pixel is 1; by default a fifth of the radius."""
    norm: Norm = "linf"
    """What the radius is measured in: linf, l2 or l1."""
    seed: Seed = 0
    """Seed of the random starts."""
    loss: Loss = Field(
        default=registry.LINEAR.usual_loss,
        description=f"What is maximised; by default {registry.LINEAR.usual_loss}, {_OTHER_LOSSES}, "
        'for train.recipe = "paper" squared-error.',
    )
    restarts: Annotated[int, Field(ge=1)] = 1
    """Random starts, of which each image keeps the worst."""
    targets: Annotated[int, Field(ge=1)] = 9
    """Other classes that apgd-targeted moves towards, the likeliest first."""
    queries: Annotated[int, Field(ge=1)] = 5000
    """Predictions that square may ask for, an image and a start."""

    @model_validator(mode="before")
    @classmethod
    def _resolve_step(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        resolved = dict(values)
        if values.get("name") is None:
            asked = {key: values.get(key, cls.model_fields[key].default) for key in ("norm", "restarts")}
            resolved["name"] = registry.default_attack(**asked, loss=values.get("loss")).name
        if values.get("loss") is None:
            resolved["loss"] = registry.ATTACKS.get(str(resolved["name"]), registry.LINEAR).usual_loss
        if values.get("step_size") is None:
            radius = fraction(values.get("radius", cls.model_fields["radius"].default))
            if isinstance(radius, int | float) and not isinstance(radius, bool) and radius >= 0:
                resolved["step_size"] = step_length(radius, None)
        return resolved

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            registry.find(name)
        except RequestError as error:
            raise ValueError(str(error).removeprefix("attack.name: ")) from error
        return name

    @model_validator(mode="after")
    def _possible(self) -> AttackConfig:
        if refusal := self.spec.refusal(norm=self.norm, loss=self.loss, restarts=self.restarts):
            raise ValueError(refusal)
        return self

    @property
    def spec(self) -> registry.AttackSpec:
        """What the registry says of the attack."""
        return registry.find(self.name)

    def described(self) -> dict[str, Any]:
        """Everything that tells what this attack does, as JSON values, with what goes without saying written out."""
        unused = {key for key in ("steps", "step_size", "targets", "queries") if not self.spec.uses(key)}
        found = {key: value for key, value in self.model_dump(mode="python").items() if key not in unused}
        return found | ({"steps": 1} if unused >= {"steps", "queries"} else {})

    @property
    def label(self) -> str:
        """A file name that tells attacks apart."""
        words = [
            self.name.replace(":", "."),
            self.norm,
            f"r{self.radius:.12g}",
            f"s{self.step_size:.12g}",
            f"n{self.steps}",
        ]
        words += [f"seed{self.seed}", self.loss]
        words += [f"x{self.restarts}"] if self.restarts != 1 else []
        words += [f"t{self.targets}"] if self.spec.uses("targets") else []
        words += [f"q{self.queries}"] if self.spec.uses("queries") else []
        return "_".join(words)


OF_CROSS_FIT = ("folds", "clean_weight", "validation")
"""Keys that the paper's recipe has no use for."""


class TrainConfig(Section):
    """Adv-NTK: the training of one effective time per sample."""

    recipe: Literal["cross-fit", "paper"] = "cross-fit"
    """How the effective times are trained: cross-fit, or paper as published."""
    steps: Annotated[int, Field(ge=1)] = 30
    """Steps of training; by default 30 of cross-fit, 50 of the paper's recipe."""
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


class RunConfig(Section):
    """Everything that a run needs to know."""

    presets: ClassVar[str] = "presets"
    """Folder of the built-in presets in the package."""

    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    gram: GramConfig = GramConfig()
    solver: SolverConfig = SolverConfig()
    attack: AttackConfig = AttackConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _loss_of_the_recipe(cls, values: Any) -> Any:
        """The paper's recipe attacks the squared error, unless another loss is given."""
        if not isinstance(values, Mapping) or (loss := cls._usual_loss(values.get("train"))) is None:
            return values
        attack = values.get("attack", {})
        usual = registry.PLAIN.name
        if not isinstance(attack, Mapping) or attack.get("loss") is not None or attack.get("name", usual) != usual:
            return values
        return {**values, "attack": {**attack, "loss": loss}}

    @classmethod
    def _usual_loss(cls, train: Any) -> str | None:
        """Loss of PGD where none is given; None: as AttackConfig has it."""
        return "squared-error" if isinstance(train, Mapping) and train.get("recipe") == "paper" else None

    @model_validator(mode="after")
    def _curve_is_of_test_images(self) -> RunConfig:
        if self.evaluation.curve is not None and self.evaluation.curve > self.data.n_test:
            raise ValueError(
                f"evaluation.curve is {self.evaluation.curve}, more than data.n_test = {self.data.n_test}; "
                "leave it out for all test images"
            )
        return self

    @property
    def final_tier(self) -> tuple[str, int] | None:
        """The tier that ends the run, if its cost allows it, and the number of test images; None: none is wanted."""
        e = self.evaluation
        if e.tier == "none":
            return None
        return "standard" if e.tier == "auto" else e.tier, min(e.tier_images, self.data.n_test)

    def to_toml(self) -> str:
        """The resolved configuration; reading it back gives an equal one."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


IDENTITY_FREE = {
    ("gram", "workers"),
    ("evaluation", "workers"),
    ("evaluation", "tier"),
    ("evaluation", "tier_images"),
    ("solver", "memory"),
    ("solver", "max_passes"),
    ("solver", "operator"),
    ("data", "path"),
}
"""Keys that may change between two starts of one run: they say how it is computed, or what follows its own results."""


def difference(
    ours: RunConfig, stored: RunConfig, *, sections: Collection[str] = (), free: Collection[tuple[str, str]] = ()
) -> tuple[str, Any, Any] | None:
    """The first key that tells two runs apart: (section.key, stored value, our value).

    Parameters
    ----------
    ours, stored
        The two configurations.
    sections
        Names of the sections that are compared; by default all of ours.
    free
        Pairs (section, key) that may differ besides those of IDENTITY_FREE.
    """
    a, b = ours.model_dump(include=set(sections) or None), stored.model_dump()
    for section, keys in a.items():
        for key, value in keys.items():
            if (section, key) not in {*IDENTITY_FREE, *free} and value != b[section][key]:
                return f"{section}.{key}", b[section][key], value
    return None
