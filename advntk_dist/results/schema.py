"""What each JSON file of a run directory holds; :mod:`advntk_dist.results.sealed` writes and reads them.

Accuracies are fractions in [0, 1], each with its 95% interval and number of images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

ADV_NTK = "adv_ntk"
"""Key of Adv-NTK among the methods of a run."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    """The ends of an interval; raises ValueError where the lower one is above the upper one."""
    if ends[0] > ends[1]:
        raise ValueError("the lower end is above the upper one")
    return ends


Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Images = Annotated[int, Field(ge=1)]
Interval = Annotated[
    tuple[Fraction, Fraction],
    AfterValidator(_ascending),
    Field(description="95% interval of the accuracy above it."),
]
PairedInterval = Annotated[
    tuple[Difference, Difference],
    AfterValidator(_ascending),
    Field(description="Paired 95% interval of the difference above it."),
]
Attack = Annotated[
    dict[str, Any],
    Field(description="Attack of the run, with the keys of [attack], and the largest `max_perturbation` that it used."),
]
Attacks = Annotated[list[dict[str, Any]], Field(description="Every attack that counts, with the keys of [attack].")]
Environment = Annotated[
    dict[str, Any], Field(description="Versions of Python and of packages, platform, and cores of the machine.")
]


class _Section(BaseModel):
    """A part of a file; keys that are not declared are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class MethodRow(_Section):
    """Clean and robust accuracy of a method, with intervals, images and the largest perturbation that was used."""

    clean: Fraction = Field(description="Part of the clean images that are classified correctly.")
    clean_interval: Interval
    robust: Fraction
    """Part of the images that are classified correctly when clean and under every attack that counts here."""
    robust_interval: Interval
    n_test: Images = Field(description="Images that the accuracies are of.")
    max_perturbation: float
    """Largest change of an image that an attack used, in the norm of the attack."""


class RunMethodRow(MethodRow):
    """A method of a run: early stopping with its time, Adv-NTK with its recipe."""

    t: float | None = Field(None, description="Of early stopping: the uniform training time that was chosen.")
    validation_robust: Fraction | None = None
    """Of early stopping: robust accuracy on the validation images at that time."""
    recipe: str | None = Field(None, description="Of Adv-NTK: train.recipe.")
    steps: Count | None = Field(None, description="Of Adv-NTK: steps of training.")
    lr: float | None = Field(None, description="Of Adv-NTK: train.lr.")


class FiniteNetworksRow(MethodRow):
    """Networks of finite width: the means over seeds, with the intervals of the test images at that mean."""

    clean_by_seed: list[Fraction] = Field(description="Clean accuracy of each network.")
    robust_by_seed: list[Fraction] = Field(description="Robust accuracy of each network.")
    steps: list[Count] = Field(description="Step of training at which each was evaluated.")


class AttackRow(_Section):
    """What one attack of a tier did to the images that are robust under those before it."""

    name: str = Field(description="Name of the attack within the tier.")
    attacked: Count = Field(description="Images that it attacked: those that no attack before it had broken.")
    broken: Count = Field(description="Images of these that it broke.")
    robust: Fraction = Field(description="Part of all images that are robust after it.")
    robust_interval: Interval
    max_perturbation: float = Field(description="Largest change of an image that it used.")


class TierMethodRow(MethodRow):
    """A method under a tier: each attack, the seconds it took over all starts, and what was predicted of them."""

    attacks: list[AttackRow] = Field(description="What each attack did, in their order.")
    seconds: Seconds = Field(description="Time of the attacks on this method, over all starts.")
    predicted: dict[str, Any]
    """Image-steps, queries and seconds that were predicted, `most` and `expected`."""
    flags: dict[str, list[str]] | None = Field(None, description="Warnings of AutoAttack's own checks, by part.")
    packages: dict[str, str | None] | None = Field(None, description="Versions of AutoAttack's packages.")


class PairRow(_Section):
    """A method against another on the same images: differences of accuracies, with their paired 95% intervals."""

    method: str = Field(description="Method that is compared.")
    against: str = Field(description="Method that it is compared with.")
    n_test: Images = Field(description="Images that both have met.")
    clean: Difference = Field(description="Clean accuracy of `method` minus that of `against`.")
    clean_interval: PairedInterval
    robust: Difference = Field(description="Robust accuracy of `method` minus that of `against`.")
    robust_interval: PairedInterval


class CurveResults(_Section):
    """Accuracies of uniform training times, on validation and on test images."""

    times: list[float] = Field(description="Uniform training times t, ascending.")
    validation: list[MethodRow] = Field(description="Accuracies on validation images, one row a time.")
    test: list[MethodRow] = Field(description="Accuracies on test images, one row a time.")


class CheckedRadiusRow(_Section):
    """A radius at which each image met the attack on the linearised margin, judged by the exact predictor."""

    radius: float = Field(description="Radius, in the norm of the run's attack.")
    expected: Fraction = Field(description="Part of the images that are robust by the linearised margin.")
    robust: Fraction = Field(description="Part of the images that are robust under the attack.")
    robust_interval: Interval
    n_test: Images = Field(description="Images that were judged.")


class RadiusCurveRow(_Section):
    """Robust accuracy by the linearised margin over the radius."""

    radii: list[float] = Field(description="Radii, ascending from 0.")
    robust: list[Fraction] = Field(
        description="Part of the images that no change up to the radius overtakes, linearly."
    )


class NonlinearityRow(_Section):
    """|linearised - true margin| at worst points within the run's radius, over the median of |linearised| there."""

    median: float = Field(description="Median over images that are classified correctly.")
    high: float = Field(description="95th percentile of them.")


class RadiusMethodRow(_Section):
    """A method over the radius."""

    checked: list[CheckedRadiusRow] = Field(description="Radii at which the curve was checked.")
    nonlinearity: NonlinearityRow | None
    """How far the margin is from linear within the run's radius; null where no image is classified correctly."""
    curves: dict[Literal["linf", "l2", "l1"], RadiusCurveRow] = Field(description="The curve in each norm.")


class RadiusResults(_Section):
    """Robust accuracy over the radius, from the derivatives of all outputs at clean images; no part of worst_case."""

    images: Images = Field(description="Number of test images, the first of the test part.")
    radius: float = Field(description="Radius of the run's attack.")
    norm: Literal["linf", "l2", "l1"] = Field(description="Norm in which the curves were checked: that of the attack.")
    methods: Mapping[str, RadiusMethodRow] = Field(description="Each method over the radius.")


class Described(_Section):
    """Which run a file is about: what it is made of, and digests of its configuration and of its images."""

    configuration: str | None = None
    """Digest of the configuration, without keys that only say how it is computed."""
    data: str | None = Field(None, description="Fingerprint of the images.")
    dataset: str = Field(description="Name of the dataset.")
    network: str = Field(description="Name of the network.")
    n_train: Images = Field(description="Training images.")
    n_val: Images = Field(description="Validation images.")
    n_test: Images = Field(description="Test images.")


class AloneRow(_Section):
    """A method under attacks that not all methods have met, together with those that all have met."""

    method: str = Field(description="Method that has met more attacks than the others.")
    set: str = Field(description="Name of the further outcomes below evaluation.zarr.")
    attacks: Attacks = Field(min_length=1)
    robust: Fraction = Field(description="Part of the images that are robust under all of these attacks.")
    robust_interval: Interval
    n_test: Images = Field(description="Images that have met them.")


class WorstCaseResults(_Section):
    """Methods under the worst of all attacks that the first ``images`` test images have met, image by image.

    ``sets`` are the names of the attacks' outcomes below evaluation.zarr; the run's own attack is the first.
    """

    images: Images = Field(description="Number of test images, the first of the test part.")
    sets: list[str] = Field(min_length=1, description="Names of the outcomes below evaluation.zarr.")
    attacks: Attacks = Field(min_length=1)
    methods: Mapping[str, MethodRow] = Field(min_length=1, description="Accuracies of each method in the worst case.")
    paired: list[PairRow] = Field(description="Differences between methods in the worst case.")
    alone: list[AloneRow] = Field(description="Methods under attacks that the others have not met.")


class Attacked(Described):
    """Methods under one attack."""

    attack: Attack
    methods: Mapping[str, MethodRow] = Field(min_length=1, description="Accuracies of each method under this attack.")

    @property
    def met(self) -> WorstCaseResults:
        """The methods under all attacks that each of them has met: under this attack alone, as far as is known."""
        return WorstCaseResults(
            images=self.n_test, sets=[""], attacks=[self.attack], methods=self.methods, paired=[], alone=[]
        )


class FinalTier(_Section):
    """The tier that ends a run: what was asked for, and whether its predicted cost was worth it."""

    asked: Literal["auto", "none", "standard", "full"] = Field(description="evaluation.tier.")
    name: str | None = Field(None, description="The tier that it stands for; absent where none was asked for.")
    images: Images | None = Field(None, description="Test images that it is for.")
    worth: bool = Field(description="Whether the tier was run.")
    predicted_seconds: Seconds | None = Field(None, description="Time that was predicted for it.")
    run_seconds: Seconds | None = Field(None, description="Time of the run before it.")


class RunResults(Attacked):
    """results.json. ``methods``, ``paired`` and ``curve`` are under the run's own attack alone."""

    methods: Mapping[str, RunMethodRow] = Field(min_length=1)
    """Accuracies of `ntk`, `early_stopped` and `adv_ntk` under the run's own attack."""
    paired: list[PairRow] = Field(description="Differences between methods under the run's own attack.")
    worst_case: WorstCaseResults = Field(description="Accuracies under all attacks that the methods have met.")
    curve: CurveResults = Field(description="Accuracies over uniform training times: the degeneration curve.")
    radius: RadiusResults = Field(description="Accuracies over the radius, in three norms.")
    tier: FinalTier = Field(description="Stronger attacks that ended the run.")
    gram: dict[str, Any] = Field(description="Backend, dtype, tile edge, number of tiles and bytes of the Gram matrix.")
    solver: dict[str, Any]
    """Tolerance, and passes, estimated error and smallest Ritz value of each solve."""
    duplicates: dict[str, Any] | None = Field(None, description="Equal images within and across the parts.")
    near_equal: dict[str, Any] | None = Field(None, description="Images that are almost a training image.")
    seconds: dict[str, Seconds] = Field(description="Time of each stage, over all starts.")
    peak_bytes: dict[str, Count]
    """Largest resident memory of the process of the run (`driver`) and of a worker."""
    environment: Environment

    @property
    def met(self) -> WorstCaseResults:
        """The methods under all attacks that each of them has met."""
        return self.worst_case


class AttackedAgain(Attacked):
    """results-ATTACK.json of ``advntk evaluate --attack``."""

    paired: list[PairRow] = Field(description="Differences between methods under this attack.")

    @property
    def met(self) -> WorstCaseResults:
        """The methods under this attack, with their differences."""
        return super().met.model_copy(update={"paired": self.paired})


class TierResults(Described):
    """A file below ``evaluation``, of ``advntk evaluate --tier``."""

    tier: str = Field(description="Name of the tier.")
    images: Images = Field(description="Number of test images, the first of the test part.")
    attack: Attack
    attacks: Attacks
    methods: Mapping[str, TierMethodRow] = Field(min_length=1)
    """Accuracies of each method in the worst case over the tier."""
    paired: list[PairRow] = Field(description="Differences between methods under the tier.")
    environment: Environment
    note: str | None = Field(None, description="What a reader must know of these figures.")


class CheckRow(_Section):
    """One check of the gradient-masking list: what was found and what was asked for."""

    name: str = Field(description="Name of the check.")
    passed: bool = Field(description="Whether it passes.")
    value: str = Field(description="What was found.")
    criterion: str = Field(description="What was wanted.")
    details: dict[str, Any] = Field(description="Numbers behind it.")


class CheckAccuracy(_Section):
    """Robust accuracy on the checked images."""

    robust: Fraction = Field(description="Part of the images that are robust.")
    robust_interval: Interval
    n_test: Images = Field(description="Images that were checked.")


class CheckResults(Described):
    """check.json of ``advntk check``: one method held to the gradient-masking checklist."""

    method: str = Field(description="Method that was checked.")
    images: Images = Field(description="Number of test images, the first of the test part.")
    attack: Attack
    passed: bool = Field(description="Whether every check passes.")
    checks: list[CheckRow] = Field(min_length=1, description="Each check.")
    clean: Fraction = Field(description="Part of the clean images that are classified correctly.")
    own_attack: CheckAccuracy | None
    """Accuracy under the run's own attack; null for pgd-reference, which leaves the radius."""
    white_box: CheckAccuracy = Field(description="Accuracy under all white-box attacks of the checks together.")
    environment: Environment


class CellResults(MethodRow):
    """A cell of ``advntk reproduce``: its place in the grid, sizes, data, accuracies, and notes of its method."""

    dataset: str = Field(description="Name of the dataset.")
    network: str = Field(description="Name of the network.")
    radius: Annotated[int, Field(ge=0)] | float = Field(description="Radius of the attack, in units of 1/255.")
    attack: str = Field(description="Name of the attack.")
    method: str = Field(description="Method: ntk, early-stopped, adv-ntk or at.")
    seed: int = Field(description="Seed of the split and of training.")
    n_train: Images = Field(description="Training images.")
    n_val: Images = Field(description="Validation images.")
    at_steps: Images = Field(description="Steps of finite adversarial training.")
    data: str = Field(description="Fingerprint of the dataset.")
    t: float | None = Field(None, description="Of early stopping: the time that was chosen.")
    validation_robust: Fraction | None = None
    """Of early stopping: robust accuracy on validation images."""
    lr: float | None = Field(None, description="Of Adv-NTK and finite training: the learning rate.")
    width: Images | None = Field(None, description="Of finite training: units or channels of a layer.")
    seconds: Seconds = Field(description="Time that the cell took.")
    environment: Environment


class TableResults(_Section):
    """table.json of ``advntk reproduce``: accuracies in per cent over the seeds."""

    caption: str = Field(description="What the table shows.")
    rows: list[dict[str, Any]] = Field(description="One row a network, radius and method.")
    environment: Environment


class FiniteWidthResults(Attacked):
    """results.json of ``advntk finite-width``."""

    methods: Mapping[str, RunMethodRow | FiniteNetworksRow] = Field(min_length=1)
    """Accuracies of the finite networks and of the methods of infinite width."""
    flow: dict[str, Any] = Field(description="Gap between finite and infinite width, by width, and its slopes.")
    training: dict[str, Any]
    """Adversarial training of finite networks: settings, and evaluations by seed."""
    seconds: dict[str, Seconds] = Field(description="Time of each stage, over all starts.")
    environment: Environment


class DynamicsResults(_Section):
    """dynamics.json of ``advntk dynamics``: standard and adversarial training over all times."""

    dataset: str = Field(description="Name of the dataset.")
    network: str = Field(description="Name of the network.")
    n_train: Images = Field(description="Training images.")
    attack: Attack
    request: dict[str, Any] = Field(description="Options of the command.")
    ark: dict[str, float]
    """Smallest, median and largest adversarial regularisation kernel of a training image."""
    remarks: list[str] = Field(description="What a reader must know of these figures.")
    exactness: dict[str, Any] | None
    """Distance of the closed form to the exact flow; null where the closed form is exact."""
    flows: dict[Literal["standard", "adversarial"], dict[str, Any]]
    """Rows over times, the time to stop at, and the work of the solver, of each kind of training."""
