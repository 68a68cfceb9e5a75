"""One typed, frozen configuration: TOML in, ``--set section.key=value`` on top, resolved TOML out."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from advntk_dist.errors import ConfigError, NetworkError
from advntk_dist.reproduce import paper
from advntk_dist.spec import Activation, BackendChoice, parse_name


def _fraction(value: Any) -> Any:
    """Read "8/255" as the number that it is."""
    if isinstance(value, str) and value.count("/") == 1:
        above, below = value.split("/")
        try:
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError):
            return value  # pydantic says what is wrong with it
    return value


def _no_bool(value: Any) -> Any:
    """Keep pydantic from reading true as 1 byte."""
    return str(value) if isinstance(value, bool) else value


Pixels = Annotated[float, BeforeValidator(_fraction), Field(allow_inf_nan=False)]
"""A distance between images whose pixels span a range of 1; a fraction such as "8/255" is understood."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Section(BaseModel):
    """Base of all sections: frozen; unknown keys and other types (true or "3" for a number) are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, strict=True)


class DataConfig(Section):
    """Which images, and how many of them."""

    name: str = "digits"
    """A dataset's name, or a path."""
    path: str | None = None
    """Folder or archive of the dataset, where the name alone does not say."""
    n_train: Annotated[int, Field(ge=2)] = 1000
    n_val: Annotated[int, Field(ge=1)] = 300
    n_test: Annotated[int, Field(ge=1)] = 497
    seed: Seed = 0
    """Seed of the split into training, validation and test images."""
    resize: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Edge in pixels that images are brought to: shorter side scaled, antialiased, then the middle square."""
    class_subset: Annotated[tuple[str | Annotated[int, Field(ge=0)], ...], Field(strict=False)] | None = None
    """Names or numbers of the classes to keep; by default all."""

    @field_validator("class_subset")
    @classmethod
    def _two_classes(cls, classes: tuple[str | int, ...] | None) -> tuple[str | int, ...] | None:
        if classes is not None and len(set(classes)) != len(classes):
            raise ValueError("names a class twice")
        if classes is not None and len(classes) < 2:
            raise ValueError("must be at least two classes")
        return classes

    @model_serializer(mode="wrap", when_used="json")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the two newest keys out where they say nothing: identities of earlier runs stay what they were."""
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if v is not None or k not in ("resize", "class_subset")}


class NetworkConfig(Section):
    """The infinitely wide network."""

    name: str = "mlp-3"
    W_std: Positive = 1.76
    b_std: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.18
    activation: Activation = "relu"
    backend: BackendChoice = "auto"

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
    workers: Annotated[int, Field(ge=1)] | None = None
    """Ray actors; by default one a GPU, or one a CPU where there is none."""


class SolverConfig(Section):
    """How products with the Gram matrix become coefficients."""

    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """Bound on the relative error of coefficients, Frobenius norm."""
    memory: Annotated[ByteSize, BeforeValidator(_no_bool), Field(gt=0)] = ByteSize(4 * 2**30)
    """Memory for the matrix (held whole if it fits half of this) and for Krylov bases; "4GiB" is understood."""
    ridge: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Added to the diagonal at t = infinity, relative to the mean of the diagonal."""
    max_passes: Annotated[int, Field(ge=1)] = 1000
    operator: Literal["auto", "memory", "threads", "dask-on-ray", "resident"] = "auto"
    """Where products with the matrix are computed; auto chooses from the memory there is."""


class AttackConfig(Section):
    """The attack of training, selection and evaluation."""

    name: Literal["pgd", "pgd-reference", "fgsm", "apgd", "apgd-targeted", "square"] = "pgd"
    radius: Annotated[Pixels, Field(ge=0)] = 0.2
    steps: Annotated[int, Field(ge=0)] = 10
    """Gradient steps a start."""
    step_size: Annotated[Pixels, Field(ge=0)] | None = None
    """By default a fifth of the radius."""
    norm: Literal["linf", "l2", "l1"] = "linf"
    seed: Seed = 0
    loss: Literal["squared-error", "margin", "dlr", "cross-entropy", "margin-targeted", "dlr-targeted"] = (
        "squared-error"
    )
    """What is maximised; by default squared error, for apgd dlr, for apgd-targeted dlr-targeted, for square margin."""
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
        if values.get("loss") is None and (usual := _USUAL_LOSS.get(str(values.get("name", "pgd")))):
            resolved["loss"] = usual
        if values.get("step_size") is None:
            radius = _fraction(values.get("radius", cls.model_fields["radius"].default))
            if isinstance(radius, int | float) and not isinstance(radius, bool) and radius >= 0:
                resolved["step_size"] = radius / 5
        return resolved

    @model_validator(mode="after")
    def _possible(self) -> AttackConfig:
        if self.name == "pgd-reference" and self.norm != "linf":
            raise ValueError('pgd-reference exists for norm = "linf" only')
        if self.name == "pgd-reference" and (self.loss != "squared-error" or self.restarts != 1):
            raise ValueError('pgd-reference exists for loss = "squared-error" and restarts = 1 only')
        if self.name == "square" and (self.norm == "l1" or self.loss != "margin"):
            raise ValueError('square exists for norm = "linf" and "l2", and for loss = "margin"')
        if self.loss.endswith("-targeted") != (self.name == "apgd-targeted"):
            raise ValueError('loss "margin-targeted" or "dlr-targeted" belongs to name = "apgd-targeted", no other')
        return self

    @model_serializer(mode="wrap", when_used="json")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave newer keys out where they say nothing: identities of earlier runs stay what they were."""
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if not self._says_nothing(k)}

    def _says_nothing(self, key: str) -> bool:
        usual = {"loss": _USUAL_LOSS[self.name], "restarts": 1, "targets": 9, "queries": 5000}
        needed = {"apgd-targeted": ("targets", "loss"), "square": ("queries",), "apgd": ("loss",), "fgsm": ("loss",)}
        return key in usual and getattr(self, key) == usual[key] and key not in needed.get(self.name, ())

    @property
    def label(self) -> str:
        """A file name that tells attacks apart; what has its default value and an older name is left out of it."""
        old = (f"r{self.radius:.6g}", f"s{self.step_size:.6g}", f"n{self.steps}", f"seed{self.seed}")
        new = {"loss": self.loss, "restarts": f"x{self.restarts}", "targets": f"t{self.targets}"}
        new["queries"] = f"q{self.queries}"
        return "_".join((self.name, self.norm, *old, *(word for k, word in new.items() if not self._says_nothing(k))))


_USUAL_LOSS = {
    "pgd": "squared-error",
    "pgd-reference": "squared-error",
    "fgsm": "squared-error",
    "apgd": "dlr",
    "apgd-targeted": "dlr-targeted",
    "square": "margin",
}


class TrainConfig(Section):
    """Adv-NTK: the training of one effective time per sample."""

    recipe: Literal["cross-fit", "paper"] = "cross-fit"
    steps: Annotated[int, Field(ge=1)] = 30
    """By default 30 of cross-fit, 50 of the paper's recipe."""
    lr: Positive = 0.03
    """Of cross-fit the root mean square of the first change of log varpi; of the paper's the length of a step. By
    default 0.03 and 1."""
    batch: Annotated[int, Field(ge=1)] = 1000
    """Images a step; by default 1,000 and 128."""
    seed: Seed = 0
    folds: Annotated[int, Field(ge=2)] = 5
    """Of cross-fit: parts of the training images, of which each step leaves one out."""
    clean_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.4
    """Of cross-fit: weight of the error on clean images beside that on attacked ones."""

    @model_validator(mode="before")
    @classmethod
    def _usual(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("recipe") == "paper":
            return {"steps": 50, "lr": 1.0, "batch": 128, **values}
        return values

    @model_validator(mode="after")
    def _possible(self) -> TrainConfig:
        if self.recipe == "paper" and (self.folds, self.clean_weight) != (5, 0.4):
            raise ValueError('folds and clean_weight belong to recipe = "cross-fit"')
        return self

    @model_serializer(mode="wrap", when_used="json")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave cross-fit's keys out of the paper's recipe: identities of earlier runs stay what they were."""
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if self.recipe != "paper" or k not in ("folds", "clean_weight")}


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
    batch: Annotated[int, Field(ge=1)] = 128
    """Test images attacked at once; each batch is committed when it is done."""
    curve: Annotated[int, Field(ge=1)] | None = None
    """The first so many test images draw the degeneration curve; by default all. The methods meet all of them."""
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

    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    gram: GramConfig = GramConfig()
    solver: SolverConfig = SolverConfig()
    attack: AttackConfig = AttackConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _curve_is_of_test_images(self) -> RunConfig:
        if self.evaluation.curve is not None and self.evaluation.curve > self.data.n_test:
            raise ValueError(
                f"evaluation.curve is {self.evaluation.curve}, more than data.n_test = {self.data.n_test}; "
                "leave it out for all test images"
            )
        return self

    def to_toml(self) -> str:
        """The resolved configuration; reading it back gives an equal one."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


IDENTITY_FREE = {
    ("gram", "workers"),
    ("evaluation", "workers"),
    ("solver", "memory"),
    ("solver", "max_passes"),
    ("solver", "operator"),
    ("data", "path"),
}
"""Keys that may change between two starts of one run: they say how it is computed, not what."""


def preset_names() -> list[str]:
    """Names of the built-in presets."""
    return sorted(p.name.removesuffix(".toml") for p in _preset_folder().iterdir() if p.name.endswith(".toml"))


def preset_text(name: str) -> str:
    """The TOML of a built-in preset; its first line is a comment that says what it is."""
    return str((_preset_folder() / f"{name}.toml").read_text(encoding="utf-8"))


def _preset_folder() -> Any:
    return resources.files("advntk_dist") / "presets"


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a preset or a TOML file, and apply ``section.key=value`` on top.

    Raises
    ------
    ConfigError
        In one line: the file or the key, what is wrong with it, and what would be right.
    """
    name = str(source)
    if name in preset_names():
        text, where = preset_text(name), f"preset {name}"
    elif name.startswith(paper.PREFIX):
        text, where = paper.preset(name), f"preset {name}"
    elif (path := Path(source)).is_file():
        text, where = read_text(path), name
    else:
        raise ConfigError(
            f"no preset and no file {name!r}; presets are {', '.join(preset_names())} and {paper.summary()}"
        )
    return parse_config(text, where=where, overrides=overrides)


def parse_config(text: str, *, where: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Like :func:`load_config`, from TOML text; ``where`` names it in messages."""
    values = read_values(text, where=where, overrides=overrides)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_one_line(error)}") from error


def read_values(text: str, *, where: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The sections of TOML text with overrides applied, not checked; ConfigError if the text is not TOML."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from error
    for override in overrides:
        _apply_override(values, override)
    return values


def difference(ours: RunConfig, stored: RunConfig) -> tuple[str, Any, Any] | None:
    """The first key that tells two runs apart: (section.key, stored value, our value)."""
    a, b = ours.model_dump(), stored.model_dump()
    for section, keys in a.items():
        for key, value in keys.items():
            if (section, key) not in IDENTITY_FREE and value != b[section][key]:
                return f"{section}.{key}", b[section][key], value
    return None


def read_text(path: Path) -> str:
    """The text of a configuration file; ConfigError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from error


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, raw = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name) or "." in name:
        raise ConfigError(f"--set {override!r}: write section.key=value, for example --set data.n_train=2000")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()  # a bare word: a string without its quotes
    if not isinstance(values.setdefault(section, {}), dict):
        raise ConfigError(f"{section}: must be a section, [{section}]")
    values[section][name] = value


def _one_line(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "configuration"
        if item["type"] == "extra_forbidden":
            parts.append(f"{key}: no such key{_alternatives(item['loc'])}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(item["input"], dict) else f", got {item['input']!r}"
            parts.append(f"{key}: {message}{shown}")
    return "; ".join(parts)


def _alternatives(loc: tuple[int | str, ...]) -> str:
    if len(loc) == 1:
        return f"; sections are {', '.join(RunConfig.model_fields)}"
    section = RunConfig.model_fields.get(str(loc[0]))
    fields = getattr(section.annotation, "model_fields", {}) if section else {}
    return f"; {loc[0]} has {', '.join(fields)}"
