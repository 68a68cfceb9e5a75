"""The JSON files of a run directory: what each of them holds, how it is written, and how it is read back.

Every file carries the number of its format and a checksum of all that it says, so that a reader tells what was written
from what was changed since. Accuracies are fractions in [0, 1], each with its 95% interval and number of images.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from advntk_dist.errors import StoreDamagedError, StoreMismatchError
from advntk_dist.storage.durable import json_checksum, write_durable
from advntk_dist.storage.paths import Location

FORMAT = 3
"""Number of the format of every JSON file of a run directory."""

ADV_NTK = "adv_ntk"
"""Key of Adv-NTK among the methods of a run."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    """The ends of an interval; raises ValueError where the lower one is above the upper one."""
    if ends[0] > ends[1]:
        raise ValueError("the lower end is above the upper one")
    return ends


Interval = Annotated[tuple[Fraction, Fraction], AfterValidator(_ascending)]
DifferenceInterval = Annotated[tuple[Difference, Difference], AfterValidator(_ascending)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Images = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    """A part of a file; keys that are not declared are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class MethodRow(_Section):
    """Clean and robust accuracy of a method, with intervals, images and the largest perturbation that was used."""

    clean: Fraction
    clean_interval: Interval
    robust: Fraction
    robust_interval: Interval
    n_test: Images
    max_perturbation: float


class RunMethodRow(MethodRow):
    """A method of a run: early stopping with its time, Adv-NTK with its recipe."""

    t: float | None = None
    validation_robust: Fraction | None = None
    recipe: str | None = None
    steps: Count | None = None
    lr: float | None = None


class AttackRow(_Section):
    """What one attack of a tier did to the images that are robust under those before it."""

    name: str
    attacked: Count
    broken: Count
    robust: Fraction
    robust_interval: Interval
    max_perturbation: float


class TierMethodRow(MethodRow):
    """A method under a tier: each attack, the seconds it took over all starts, and what was predicted of them."""

    attacks: list[AttackRow]
    seconds: Seconds
    predicted: dict[str, Any]
    flags: dict[str, list[str]] | None = None
    packages: dict[str, str | None] | None = None


class PairRow(_Section):
    """A method against another on the same images: differences of accuracies, with their paired 95% intervals."""

    method: str
    against: str
    n_test: Images
    clean: Difference
    clean_interval: DifferenceInterval
    robust: Difference
    robust_interval: DifferenceInterval


class CurveResults(_Section):
    """Accuracies of uniform training times, on validation and on test images."""

    times: list[float]
    validation: list[MethodRow]
    test: list[MethodRow]


class _Described(_Section):
    """Which run a file is about: what it is made of, and digests of its configuration and of its images."""

    configuration: str | None = None
    data: str | None = None
    dataset: str
    network: str
    n_train: Images
    n_val: Images
    n_test: Images


class AloneRow(_Section):
    """A method under attacks that not all methods have met, together with those that all have met."""

    method: str
    set: str
    attacks: list[dict[str, Any]] = Field(min_length=1)
    robust: Fraction
    robust_interval: Interval
    n_test: Images


class WorstCaseResults(_Section):
    """Methods under the worst of all attacks that the first ``images`` test images have met, image by image.

    ``sets`` are the names of the attacks' outcomes below evaluation.zarr; the run's own attack is the first.
    """

    images: Images
    sets: list[str] = Field(min_length=1)
    attacks: list[dict[str, Any]] = Field(min_length=1)
    methods: dict[str, MethodRow] = Field(min_length=1)
    paired: list[PairRow]
    alone: list[AloneRow]


class FinalTier(_Section):
    """The tier that ends a run: what was asked for, and whether its predicted cost was worth it."""

    asked: Literal["auto", "none", "standard", "full"]
    name: str | None = None
    images: Images | None = None
    worth: bool
    predicted_seconds: Seconds | None = None
    run_seconds: Seconds | None = None


class RunResults(_Described):
    """results.json. ``methods``, ``paired`` and ``curve`` are under the run's own attack alone."""

    attack: dict[str, Any]
    methods: dict[str, RunMethodRow] = Field(min_length=1)
    paired: list[PairRow]
    worst_case: WorstCaseResults
    tier: FinalTier
    curve: CurveResults
    gram: dict[str, Any]
    solver: dict[str, Any]
    duplicates: dict[str, Any] | None = None
    near_equal: dict[str, Any] | None = None
    seconds: dict[str, Seconds]
    peak_bytes: dict[str, Count]
    environment: dict[str, Any]


class AttackedAgain(_Described):
    """results-ATTACK.json of ``advntk evaluate --attack``."""

    attack: dict[str, Any]
    methods: dict[str, MethodRow] = Field(min_length=1)
    paired: list[PairRow]


class TierResults(_Described):
    """A file below ``evaluation``, of ``advntk evaluate --tier``."""

    tier: str
    images: Images
    attack: dict[str, Any]
    attacks: list[dict[str, Any]]
    methods: dict[str, TierMethodRow] = Field(min_length=1)
    paired: list[PairRow]
    environment: dict[str, Any]
    note: str | None = None


class CheckRow(_Section):
    """One check of the gradient-masking list: what was found and what was asked for."""

    name: str
    passed: bool
    value: str
    criterion: str
    details: dict[str, Any]


class CheckAccuracy(_Section):
    """Robust accuracy on the checked images."""

    robust: Fraction
    robust_interval: Interval
    n_test: Images


class CheckResults(_Described):
    """check.json."""

    method: str
    images: Images
    attack: dict[str, Any]
    passed: bool
    checks: list[CheckRow] = Field(min_length=1)
    clean: Fraction
    own_attack: CheckAccuracy | None
    white_box: CheckAccuracy
    environment: dict[str, Any]


class CellResults(MethodRow):
    """A cell of ``advntk reproduce``: its place in the grid, sizes, data, accuracies, and notes of its method."""

    dataset: str
    network: str
    radius: Annotated[int, Field(ge=0)] | float
    attack: str
    method: str
    seed: int
    n_train: Images
    n_val: Images
    at_steps: Images
    data: str
    t: float | None = None
    validation_robust: Fraction | None = None
    lr: float | None = None
    width: Images | None = None
    seconds: Seconds
    environment: dict[str, Any]


class TableResults(_Section):
    """table.json of ``advntk reproduce``: one row a network and radius, accuracies in per cent over the seeds."""

    caption: str
    rows: list[dict[str, Any]]
    environment: dict[str, Any]


class FiniteWidthResults(_Described):
    """results.json of ``advntk finite-width``."""

    attack: dict[str, Any]
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    flow: dict[str, Any]
    training: dict[str, Any]
    seconds: dict[str, Seconds]
    environment: dict[str, Any]


class DynamicsResults(_Section):
    """dynamics.json."""

    dataset: str
    network: str
    n_train: Images
    attack: dict[str, Any]
    request: dict[str, Any]
    ark: dict[str, float]
    remarks: list[str]
    exactness: dict[str, Any] | None
    flows: dict[Literal["standard", "adversarial"], dict[str, Any]]


def as_text(kind: type[BaseModel], values: dict[str, Any]) -> str:
    """The text of a file of this kind; absent values of optional keys are left out.

    Raises
    ------
    pydantic.ValidationError
        If the values are not of this kind, which is an error of the program.
    """
    kind.model_validate(values)
    body = {"format": FORMAT} | json.loads(json.dumps(values, allow_nan=False))
    return json.dumps(body | {"checksum": checksum(body)}, indent=2) + "\n"


def write(path: Location, kind: type[BaseModel], values: dict[str, Any]) -> None:
    """Write a file of this kind, whole or not at all.

    Raises
    ------
    OSError, StoreError
        If it cannot be written.
    """
    write_durable(path, as_text(kind, values).encode())


def read(path: Location, kind: type[BaseModel], remedy: str) -> dict[str, Any] | None:
    """What a file of this kind says, without format number and checksum; None where there is none.

    Parameters
    ----------
    path, kind
        The file, and what it should hold.
    remedy
        How it is written again, which ends the message of an error.

    Raises
    ------
    StoreMismatchError
        If it is of another format.
    StoreDamagedError
        If it cannot be parsed, was changed since it was written, or is of another kind.
    """
    found = parsed(path, remedy)
    if found is None:
        return None
    if not is_as_written(found):
        raise StoreDamagedError(f"{path}: was changed after it was written (its checksum differs); {remedy}")
    del found["format"], found["checksum"]
    try:
        kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreDamagedError(f"{path}: {where}: {first['msg']}; {remedy}") from error
    return found


def parsed(path: Location, remedy: str) -> dict[str, Any] | None:
    """A file's JSON object with format number and checksum, whatever else it says; None where there is none.

    Raises
    ------
    StoreMismatchError
        If it is of another format.
    StoreDamagedError
        If it cannot be parsed, or is not a file of ours.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreDamagedError(f"{path}: not valid JSON ({error}); {remedy}") from error
    if not isinstance(found, dict) or not {"format", "checksum"} <= found.keys():
        raise StoreDamagedError(f"{path}: lacks its format number or its checksum; {remedy}")
    if found["format"] != FORMAT and is_as_written(found):
        raise StoreMismatchError(str(path), "format", found["format"], FORMAT)
    return found


OWNER = ("configuration", "data")
"""Keys that tell runs apart."""


def require_owner(path: Location, found: dict[str, Any], owner: dict[str, Any], remedy: str) -> None:
    """Raise StoreDamagedError if a file is of another run than the one whose keys these are; ``remedy`` ends it."""
    for key in OWNER:
        if owner.get(key) is not None and found.get(key) != owner[key]:
            raise StoreDamagedError(
                f"{path}: is of another run ({key} is {found.get(key)}, not {owner[key]}); {remedy}"
            )


def is_as_written(found: dict[str, Any]) -> bool:
    """Whether a file's JSON object has the checksum of what it says."""
    return bool(found["checksum"] == checksum({key: value for key, value in found.items() if key != "checksum"}))


def checksum(body: dict[str, Any]) -> str:
    """The crc32c of a JSON object, whatever the order of its keys."""
    return f"{json_checksum(body):08x}"


def first_difference(found: object, expected: object, where: str = "") -> str | None:
    """The first place at which a JSON value differs from what is expected, and both in words; None where none does.

    Keys that are not expected do not count.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        inside = [(found.get(key, "nothing"), value, f"{where}.{key}".lstrip(".")) for key, value in expected.items()]
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        inside = [(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(found, expected, strict=True))]
    else:
        return None if found == expected else f"{where} is {_short(found)} in place of {_short(expected)}"
    return next((place for item in inside if (place := first_difference(*item)) is not None), None)


def _short(value: object) -> str:
    """A value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
