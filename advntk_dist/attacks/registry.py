"""Every attack by its name: where its function is, what it takes, what it costs, and which tiers it belongs to.

Nothing else in the package knows a name: other modules ask :func:`find`, :func:`tier`, or one of the constants below.
An attack is added by an entry in ``_OURS``; an attack of the user's own needs none, its name is
``package.module:attack``. Configuration and command line import this module, so that it loads nothing heavy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from advntk_dist.errors import RequestError
from advntk_dist.spec import IMPORT_PATH, LOSSES, NORMS, TARGETED, Loss, Norm
from advntk_dist.text import did_you_mean

if TYPE_CHECKING:
    from advntk_dist.attacks.base import Attack, BoundAttack

UNTARGETED: tuple[Loss, ...] = tuple(loss for loss in LOSSES if loss not in TARGETED)
Keys = dict[str, Any]
"""Keys of the section [attack] of a configuration, with their values."""


class AttackOptions(Protocol):
    """The keys of the section [attack] that tell how much work an attack is."""

    steps: int
    restarts: int
    targets: int
    queries: int


@dataclass(frozen=True)
class Passes:
    """Passes of one image over all training images, at most."""

    queries: int
    """Values alone."""
    steps: int
    """Values with gradients."""

    @property
    def units(self) -> int:
        """The steps that an attack consists of: its gradients, or without any the values that it asks for itself."""
        return self.steps or self.queries - 1


@dataclass(frozen=True)
class Tier:
    """The strength of a sequence of attacks.

    Attributes
    ----------
    says
        What it is, in one line.
    steps
        Steps of Auto-PGD; 0 for no attacks beyond the run's own.
    targets
        Classes that the targeted Auto-PGD moves towards.
    queries
        Predictions that a search without gradients may ask for.
    restarts
        Starts of the untargeted Auto-PGD, for each loss.
    """

    says: str
    steps: int = 0
    targets: int = 0
    queries: int = 0
    restarts: int = 1


TIERS: dict[str, Tier] = {
    "fast": Tier("the run's attack, as training and selection see it"),
    "standard": Tier("APGD with 2 losses and 3 targets, Square with 1,000 queries", 100, 3, 1000),
    "full": Tier("APGD with 2 losses from 5 starts and 9 targets, Square with 5,000 queries", 100, 9, 5000, 5),
}
"""Tiers of our own attacks. ``standard`` has three targets: each costs as much as a whole APGD, and the likeliest
classes lead."""


@dataclass(frozen=True)
class AttackSpec:
    """What the package needs to know of an attack.

    Attributes
    ----------
    name, title
        The name in a configuration, and the name in a sentence.
    function
        Where the function is, ``package.module:function``; it is imported when it is first called.
    description
        What the attack does, as a sentence for reports and help.
    options
        Keyword arguments of the function, each with the key of [attack] that it is given, besides radius, norm, loss,
        restarts, seed and indices, which every attack takes. The section [attack] has their defaults.
    repeated
        The key of [attack] that says how often the attack repeats its step; None where it takes one pass.
    start
        Passes of one start towards one class.
    ranks
        Value passes that choose the classes to move towards.
    usual_loss, losses, norms
        Loss where the configuration gives none; losses and norms that the attack takes.
    one_start
        Whether several random starts are refused.
    keeps_ball
        Whether every result lies within the radius; outcomes of others are compared with nothing.
    meets_all
        Whether the attack comes first in a tier, and may meet every image that is classified correctly.
    white_box
        Whether the checks of masked gradients rely on it besides plain PGD.
    tier_keys
        Keys of [attack] for each of its places in a tier, for so many classes; None where no tier has it.
    named_by_loss
        Whether it has several places in a tier, told apart by their losses.
    training_options, training_passes
        Keyword arguments with which training calls the function, and the passes that it then takes: training needs an
        attacked image, and no proof that there is no worse one. None where these are those of evaluation.
    note
        What a reader of its figures must know, or None.
    """

    name: str
    title: str
    function: str
    description: str
    start: Callable[[AttackOptions], Passes]
    options: Mapping[str, str] = field(default_factory=dict)
    repeated: str | None = None
    ranks: int = 0
    usual_loss: Loss = "margin"
    losses: tuple[Loss, ...] = UNTARGETED
    norms: tuple[Norm, ...] = NORMS
    one_start: bool = False
    keeps_ball: bool = True
    meets_all: bool = False
    white_box: bool = False
    tier_keys: Callable[[Tier, int], Sequence[Keys]] | None = None
    named_by_loss: bool = False
    training_options: Mapping[str, Any] = field(default_factory=dict)
    training_passes: Passes | None = None
    note: str | None = None

    def cost_in_training(self, options: AttackOptions) -> Passes:
        """Passes for one image that training attacks."""
        return self.training_passes or self.cost(options)

    @property
    def call(self) -> Attack:
        """The function; RequestError where it cannot be imported."""
        module, _, name = self.function.partition(":")
        try:
            found: Attack = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise RequestError(f"attack.name: cannot import {self.function!r} ({error})") from error
        return found

    def uses(self, key: str) -> bool:
        """Whether a key of [attack] that only some attacks have means anything to this one."""
        return key in self.options.values()

    def cost(self, options: AttackOptions) -> Passes:
        """Passes for one image that withstands the attack, those of the final judgement included.

        It meets every start towards every class; the results of several are compared by a value pass each.
        """
        tries, start = options.restarts * (options.targets if self.uses("targets") else 1), self.start(options)
        compared = tries if tries > 1 else 0
        return Passes(1 + self.ranks + compared + tries * start.queries, tries * start.steps)

    def name_in_tier(self, loss: Loss) -> str:
        """What its outcomes under a loss are called within a tier."""
        return f"{self.name}-{loss}" if self.named_by_loss else self.name

    def refusal(self, *, norm: Norm, loss: Loss, restarts: int) -> str | None:
        """Why the attack cannot be had in this form; None where it can."""
        if loss in TARGETED and loss not in self.losses:
            aimed = " or ".join(spec.name for spec in ATTACKS.values() if set(TARGETED) <= set(spec.losses))
            return f"loss {_either(TARGETED)} belongs to name = {_quoted(aimed)}, no other"
        if norm not in self.norms or loss not in self.losses or (self.one_start and restarts != 1):
            limits = [f"norm = {_either(self.norms)}"] if self.norms != NORMS else []
            limits += [f"loss = {_either(self.losses)}"] if self.losses != UNTARGETED else []
            limits += ["restarts = 1"] if self.one_start else []
            return f"{self.name} exists for {' and '.join(limits)} only"
        return None

    def require_possible(self, *, norm: Norm, loss: Loss, restarts: int) -> None:
        """Raise RequestError where :meth:`refusal` says why."""
        if refusal := self.refusal(norm=norm, loss=loss, restarts=restarts):
            raise RequestError(f"attack: {refusal}")


def _quoted(text: str) -> str:
    return f'"{text}"'


def _either(names: Sequence[str]) -> str:
    return " or ".join(map(_quoted, names))


def _auto_pgd(tier: Tier, classes: int) -> list[Keys]:
    """Each loss that the number of classes allows: with two there is no difference of logits ratio."""
    losses = ("cross-entropy", "dlr" if classes > 2 else "margin")
    return [{"loss": loss, "steps": tier.steps, "restarts": tier.restarts} for loss in losses]


def _targeted_auto_pgd(tier: Tier, classes: int) -> list[Keys]:
    """From one start; with two classes it would be the untargeted one, and with three the margin takes the place."""
    if classes <= 2:
        return []
    loss = "dlr-targeted" if classes > 3 else "margin-targeted"
    return [{"loss": loss, "steps": tier.steps, "targets": min(tier.targets, classes - 1)}]


def _per_step(extra: int) -> Callable[[AttackOptions], Passes]:
    return lambda options: Passes(0, options.steps + extra)


JACOBIAN = 5
"""Passes with gradients that the derivatives of ten outputs of an MLP count as; convolutions take less."""

_STEPS = {"steps": "steps"}
_OF_A_LENGTH = _STEPS | {"step_size": "step_size"}
_FOLDER = "advntk_dist.attacks"
_OURS = (
    AttackSpec(
        "linear", "the linearised attack", f"{_FOLDER}.linear:linear",
        "The worst point of the margin linearised at the clean image, over all classes; PGD where the margin is not "
        "linear.",
        start=lambda options: Passes(4, 4 + JACOBIAN + options.steps),
        options=_OF_A_LENGTH,
        losses=("margin",),
        one_start=True,
        meets_all=True,
        tier_keys=lambda tier, classes: [{"steps": 10}] if classes > 1 else [],
        training_options={"proved": False},
        training_passes=Passes(0, 1),
    ),
    AttackSpec(
        "fgsm", "FGSM", f"{_FOLDER}.pgd:fgsm",
        "One step of steepest ascent from the clean image (Goodfellow et al. 2015).",
        start=lambda options: Passes(0, 1),
        meets_all=True,
        tier_keys=lambda tier, classes: [{}],
    ),
    AttackSpec(
        "pgd", "PGD", f"{_FOLDER}.pgd:pgd",
        "Projected gradient ascent from a random start, with steps of fixed length (Madry et al. 2018).",
        start=_per_step(0),
        options=_OF_A_LENGTH,
        repeated="steps",
        meets_all=True,
        tier_keys=lambda tier, classes: [{"steps": 10}],
    ),
    AttackSpec(
        "pgd-reference", "the attack of the paper's code", f"{_FOLDER}.pgd:pgd_reference",
        "The attack of the paper's code: one gradient at a random start, used in every step.",
        start=lambda options: Passes(0, 1),
        options=_OF_A_LENGTH,
        usual_loss="squared-error",
        losses=("squared-error",),
        norms=("linf",),
        one_start=True,
        keeps_ball=False,
        note="pgd-reference is the attack of the paper's code and not PGD: one gradient, steps around the random "
        "start, up to twice the radius from the image; for comparing with published numbers, and with no tier of "
        "another attack",
    ),
    AttackSpec(
        "apgd", "APGD", f"{_FOLDER}.apgd:apgd",
        "Auto-PGD: projected gradient ascent with momentum that halves its own steps (Croce & Hein 2020).",
        start=_per_step(1),
        options=_STEPS,
        repeated="steps",
        usual_loss="dlr",
        white_box=True,
        tier_keys=_auto_pgd,
        named_by_loss=True,
    ),
    AttackSpec(
        "apgd-targeted", "targeted APGD", f"{_FOLDER}.apgd:apgd_targeted",
        "Auto-PGD towards each of the likeliest other classes in turn (Croce & Hein 2020).",
        start=_per_step(1),
        options=_STEPS | {"targets": "targets"},
        repeated="steps",
        ranks=1,
        usual_loss="dlr-targeted",
        losses=TARGETED,
        white_box=True,
        tier_keys=_targeted_auto_pgd,
    ),
    AttackSpec(
        "square", "Square", f"{_FOLDER}.square:square",
        "Random search for squares that raise the margin, without gradients (Andriushchenko et al. 2020).",
        start=lambda options: Passes(options.queries, 0),
        options={"steps": "queries"},
        repeated="queries",
        losses=("margin",),
        norms=("linf", "l2"),
        tier_keys=lambda tier, classes: [{"queries": tier.queries}],
    ),
)  # fmt: skip
ATTACKS: dict[str, AttackSpec] = {spec.name: spec for spec in _OURS}
"""Attacks by the names that configurations use; a tier has them in this order, cheap ones first."""
LINEAR, SINGLE_STEP, PLAIN, PAPER, STRONGEST, AIMED, BLACK_BOX = _OURS
"""The attack on the linearised margin, of configurations that name none; that of one step; that of several steps, which
takes every loss and several starts; that of the paper's code; the strongest that moves towards no class; the one that
moves towards classes; and the one that asks for outputs only."""


def default_attack(*, norm: Norm, loss: Loss | None, restarts: int) -> AttackSpec:
    """The attack where none is named: LINEAR or, of a loss or a number of starts that it does not take, PLAIN."""
    refused = LINEAR.refusal(norm=norm, loss=loss or LINEAR.usual_loss, restarts=restarts)
    return LINEAR if refused is None else PLAIN


def find(name: str) -> AttackSpec:
    """The attack of a name of ours, or of ``package.module:attack``.

    The function of a user's own is called as :class:`advntk_dist.attacks.base.Attack` says. It is counted as an
    attack of so many gradient steps, and its results are refused where they leave the ball or the pixel range.

    Raises
    ------
    RequestError
        If there is no such attack; whether a user's own can be imported, its first call says.
    """
    if name in ATTACKS:
        return ATTACKS[name]
    if re.fullmatch(IMPORT_PATH, name):
        return AttackSpec(
            name, name, name, f"The attack {name} of the user's own.",
            start=_per_step(1), options=_OF_A_LENGTH, repeated="steps",
        )  # fmt: skip
    known = ", ".join([*ATTACKS, "package.module:attack"])
    raise RequestError(f"attack.name: no attack {name!r}{did_you_mean(name, ATTACKS)}; there are {known}")


def bind_attack(config: Any, *, training: bool = False) -> BoundAttack:
    """The attack that an :class:`~advntk_dist.config.AttackConfig` describes, or its form in training.

    Predictor, images, labels, seed and indices are still to be given.
    """
    spec = find(config.name)
    options = {argument: getattr(config, key) for argument, key in spec.options.items()}
    options |= spec.training_options if training else {}
    shared = {"radius": config.radius, "norm": config.norm, "loss": config.loss, "restarts": config.restarts}
    if config.name in ATTACKS:
        return partial(spec.call, **shared, **options)
    from advntk_dist.attacks.request import held_to_ball

    return partial(held_to_ball, spec.call, **shared, **options)


def tier(wanted: Tier, norm: Norm, classes: int, *, white_box: bool = False) -> list[Keys]:
    """Keys of [attack] for each attack of a tier, in order, besides radius, norm and seed.

    Parameters
    ----------
    wanted
        A value of TIERS, or a tier of another strength.
    norm
        The norm: an attack that does not take it is left out.
    classes
        Number of outputs of the predictor.
    white_box
        Whether to give only those attacks that the checks of masked gradients rely on.
    """
    return [
        {"name": spec.name} | keys
        for spec in ATTACKS.values()
        if spec.tier_keys is not None and norm in spec.norms and (spec.white_box or not white_box)
        for keys in spec.tier_keys(wanted, classes)
    ]


@dataclass(frozen=True)
class OutsideTier:
    """A sequence of attacks in their authors' own code.

    Attributes
    ----------
    name, says
        The name of the tier and of the Python package, and what it is, in one line.
    version
        The version that runs.
    parts
        Its attacks in order, each with what it asks for an image that withstands it, in each norm, checks of the
        predictor included; counted.
    black_box
        The part that asks for outputs only.
    judged
        Value passes that an image takes besides each part: its result is judged in the bridge, and for the table.
    """

    name: str
    says: str
    version: str
    parts: Mapping[str, Mapping[Norm, Passes]]
    black_box: str
    judged: int = 2

    def part_cost(self, part: str, norm: Norm) -> Passes:
        """Passes for one image that withstands a part, those of its judgement included."""
        asked = self.parts[part][norm]
        return Passes(asked.queries + self.judged, asked.steps)

    def meets_all(self, part: str) -> bool:
        """Whether a part may meet every image that is classified correctly: the first one does."""
        return part == next(iter(self.parts))


def _in_all_norms(passes: Passes) -> dict[Norm, Passes]:
    return dict.fromkeys(NORMS, passes)


AUTOATTACK = OutsideTier(
    "autoattack",
    "AutoAttack's standard version, its authors' own code, if it is installed",
    "standard",
    {
        "apgd-ce": _in_all_norms(Passes(111, 101)) | {"l1": Passes(525, 515)},
        "apgd-t": _in_all_norms(Passes(928, 909)) | {"l1": Passes(530, 515)},
        "fab-t": _in_all_norms(Passes(1837, 900)),
        "square": _in_all_norms(Passes(5012, 0)),
    },
    black_box="square",
)
"""AutoAttack (Croce & Hein 2020), the standard version."""
TIER_NAMES = (*TIERS, AUTOATTACK.name)
"""Tiers of ``advntk evaluate``."""


def keeps_ball(name: str) -> bool:
    """Whether the outcomes of an attack, or of a tier of outside code, are those of images within the radius."""
    return name == AUTOATTACK.name or find(name).keeps_ball
