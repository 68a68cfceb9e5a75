"""The gradient-masking checklist (Athalye et al. 2018; Carlini et al. 2019), one function a check.

Each check names its value and its criterion. Attacks are compared image by image on the same images; they may differ by
TOLERANCE, or by one image where a point is less than that: two attacks end in different local maxima of a few images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from advntk_dist.attacks.base import DifferentiablePredictor, Images, Norm
from advntk_dist.attacks.geometry import random_start
from advntk_dist.attacks.request import targets_of
from advntk_dist.attacks.slopes import value_and_slope
from advntk_dist.config import AttackConfig
from advntk_dist.evaluation.accuracy import Accuracy
from advntk_dist.evaluation.subject import Outcome, Subject

TOLERANCE = 0.01
"""Accuracy, as a fraction, that counts as the same; see :func:`tolerance`."""
MULTIPLES = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
"""Radii of the sweep, as multiples of the run's; the last one of all is the whole pixel range."""
SLOPE_ERROR = 1e-4
"""Relative difference allowed between input gradients and finite differences, both in float64."""
STEP = 1e-4
"""Half the distance of the two points of a difference, Euclidean norm."""
INSIDE = 0.999
"""Factor that takes images to where both points of a difference lie in the pixel range."""


PLAIN = "margin"
"""Loss of the plain attacks: of the faults of squared error and cross-entropy it has none that depends on scale."""


@dataclass(frozen=True)
class Check:
    """The verdict of one check."""

    name: str
    passed: bool
    value: str
    criterion: str
    details: dict[str, Any] = field(default_factory=dict)


def tolerance(images: int) -> float:
    """Accuracy that counts as the same on so many images: a point, and no less than one image; rounding included."""
    return max(TOLERANCE, 1 / images) + 1e-9


def single_step(subject: Subject) -> Check:
    """Iterative attacks are not weaker than one step of the same loss."""
    one, many = subject.under(subject.config("fgsm", loss=PLAIN)), subject.under(plain_pgd(subject))
    slack = tolerance(len(subject.y))
    return Check(
        "iterative attack not weaker than a single step",
        many.accuracy <= one.accuracy + slack,
        f"PGD {_percent(many)}, FGSM {_percent(one)}",
        f"PGD leaves at most {100 * slack:.3g} points more than FGSM",
        {"pgd": many.accuracy, "fgsm": one.accuracy},
    )


def black_box(subject: Subject, queries: int = 1000) -> Check:
    """Square, which asks for outputs only, fells nothing that attacks with gradients leave."""
    name = "white box not weaker than black box"
    if subject.attack.norm == "l1":
        return Check(name, True, "there is no Square in l1", "not examined")
    white, square = white_box(subject), subject.under(subject.config("square", queries=queries)).left
    only, slack = float((white & ~square).mean()), tolerance(len(subject.y))
    return Check(
        name,
        only <= slack,
        f"PGD and APGD {100 * white.mean():.1f}%, Square {100 * square.mean():.1f}%, "
        f"felled by Square alone {100 * only:.1f}%",
        f"Square alone fells at most {100 * slack:.3g}%",
        {"white_box": float(white.mean()), "square": float(square.mean()), "square_alone": only},
    )


def radius_sweep(subject: Subject) -> Check:
    """Accuracy falls with the radius, and nothing is left where the attack may choose any image."""
    whole = _whole_range(subject.x, subject.attack.norm)
    radii = [r for m in MULTIPLES if (r := m * subject.attack.radius) < whole] + [whole]
    left = [float(subject.clean.mean())]
    left += [_strongest(subject, r).accuracy for r in radii]
    rise, slack = max(b - a for a, b in pairwise(left)), tolerance(len(subject.y))
    shown = ", ".join(f"{r:.3g}: {100 * a:.1f}%" for r, a in zip([0.0, *radii], left, strict=True))
    return Check(
        "accuracy falls to 0 as the radius grows",
        rise <= slack and left[-1] == 0.0,
        shown,
        f"never rises by more than {100 * slack:.3g} points, and is 0 at the pixel range",
        {"radii": [0.0, *radii], "left": left},
    )


def plateau(subject: Subject, steps: int = 100, restarts: int = 5) -> Check:
    """More steps and more starts change nothing that the number of images could tell."""
    usual = subject.under(plain_pgd(subject))
    more = subject.under(plain_pgd(subject, steps=steps, restarts=restarts, share=0.05))
    interval = Accuracy.of(usual.left)
    floor = min(interval.low, usual.accuracy - tolerance(len(subject.y)))
    return Check(
        "more steps and restarts change nothing",
        more.accuracy >= floor,
        f"PGD-20 {_percent(usual)}, PGD-{steps} from {restarts} starts {_percent(more)}",
        f"at least {100 * floor:.1f}%, the lower end of the 95% interval of PGD-20",
        {"pgd_20": usual.accuracy, "more": more.accuracy, "floor": floor},
    )


def finite_differences(
    predictor: DifferentiablePredictor, x: Images, y: Any, radius: float, norm: Norm, seed: int = 0
) -> Check:
    """Input gradients of the loss, as attacks get them, agree with central differences along directions.

    Parameters
    ----------
    predictor
        The predictor, computing in float64.
    x, y
        A few images (m, H, W, C) in float64, and labels (m,). Points at random within the radius are examined: a
        kernel may have a kink exactly at a training image.
    radius, norm, seed
        Of those points.
    """
    points = INSIDE * random_start(np.asarray(x, np.float64), radius, norm, seed, None)
    wanted = targets_of(y, len(points), predictor.predict(points[:1]).shape[1])

    def loss(at: Images) -> Any:
        return value_and_slope(predictor, at, wanted)[1]

    gradient = np.asarray(value_and_slope(predictor, points, wanted)[2], np.float64)
    axes = (1, 2, 3)
    sizes = np.sqrt((gradient**2).sum(axis=axes, keepdims=True))
    drawn = np.random.default_rng(seed).standard_normal(points.shape)
    worst = 0.0
    for along in (gradient, drawn):
        length = np.sqrt((along**2).sum(axis=axes, keepdims=True))
        unit = along / np.where(length > 0, length, 1.0)
        measured = (loss(points + STEP * unit) - loss(points - STEP * unit)) / (2 * STEP)
        error = np.abs(measured - (gradient * unit).sum(axis=axes)) / np.where(sizes > 0, sizes, 1.0).ravel()
        worst = max(worst, float(error.max()))
    vanished = int((sizes == 0).sum())
    return Check(
        "input gradients match finite differences",
        vanished == 0 and worst <= SLOPE_ERROR,
        f"largest relative difference {worst:.1e}, {vanished} of {len(points)} gradients are 0",
        f"at most {SLOPE_ERROR:g} in float64, and no gradient is 0",
        {"largest": worst, "vanished": vanished, "images": len(points)},
    )


def transfer(subject: Subject, source: DifferentiablePredictor) -> Check:
    """Examples made on another predictor of the same images fell nothing that attacks on this one leave."""
    white = white_box(subject)
    attack = plain_pgd(subject)
    borrowed = subject.judge(attack, subject.examples(source, attack)).left
    only, slack = float((white & ~borrowed).mean()), tolerance(len(subject.y))
    return Check(
        "transfer from the ntk predictor not stronger",
        only <= slack,
        f"PGD and APGD {100 * white.mean():.1f}%, transferred {100 * borrowed.mean():.1f}%, "
        f"felled by transfer alone {100 * only:.1f}%",
        f"transfer alone fells at most {100 * slack:.3g}%",
        {"white_box": float(white.mean()), "transfer": float(borrowed.mean()), "transfer_alone": only},
    )


def within_bounds(subject: Subject) -> Check:
    """Every single image of every attack so far lies within its radius and within the pixel range."""
    pixels = int(np.prod(subject.x.shape[1:]))
    # What rounding of pixels of size up to 1/2 adds to a norm of all of them.
    rounding = (
        4
        * float(np.finfo(subject.x.dtype).eps)
        * {"linf": 1.0, "l2": pixels**0.5, "l1": float(pixels)}[subject.attack.norm]
    )
    over = max((float((o.sizes - o.attack.radius).max()) for o in subject.outcomes), default=0.0)
    outside = max((float(o.outside.max()) for o in subject.outcomes), default=0.0)
    counted = sum(len(o.sizes) for o in subject.outcomes)
    return Check(
        "every perturbation within radius and pixel range",
        over <= rounding and outside <= 0.0,
        f"{counted} images of {len(subject.outcomes)} attacks: {max(over, 0.0):.1e} over the radius, "
        f"{max(outside, 0.0):.1e} over the pixel range",
        f"at most {rounding:.0e} (rounding) over the radius, 0 over the pixel range",
        {"over_radius": over, "over_range": outside, "images": counted},
    )


def white_box(subject: Subject) -> Any:
    """Images (n,) that plain PGD and APGD with two losses leave."""
    ratio = "dlr" if subject.classes > 2 else "margin"
    attacks = [plain_pgd(subject)]
    attacks += [subject.config("apgd", loss=loss, steps=50) for loss in ("cross-entropy", ratio)]
    return np.logical_and.reduce([subject.under(a).left for a in attacks])


def plain_pgd(subject: Subject, *, steps: int = 20, restarts: int = 1, share: float = 0.1) -> AttackConfig:
    """PGD of the margin from a random start, steps of a tenth of the radius unless told otherwise."""
    size = share * subject.attack.radius
    return subject.config("pgd", loss=PLAIN, steps=steps, restarts=restarts, step_size=size)


def _strongest(subject: Subject, radius: float) -> Outcome:
    return subject.under(subject.config("apgd", loss=PLAIN, steps=50, radius=radius))


def _whole_range(x: Images, norm: Norm) -> float:
    """The radius within which every image lies of every other."""
    pixels = float(np.prod(x.shape[1:]))
    return {"linf": 1.0, "l2": pixels**0.5, "l1": pixels}[norm]


def _percent(outcome: Outcome) -> str:
    return f"{100 * outcome.accuracy:.1f}%"


def checklist(
    subject: Subject,
    source: DifferentiablePredictor,
    exact: Callable[[], DifferentiablePredictor],
    *,
    exact_images: int = 8,
    on_check: Callable[[Check], None] = lambda check: None,
) -> list[Check]:
    """All seven checks, in the order of the list.

    Parameters
    ----------
    subject
        The predictor that is examined.
    source
        The predictor that examples are transferred from.
    exact
        Makes the examined predictor in float64.
    exact_images
        Images on which gradients are compared with differences.
    on_check
        Called after each check.
    """
    a = subject.attack
    few = slice(0, exact_images)
    checks: list[Callable[[], Check]] = [
        lambda: single_step(subject),
        lambda: black_box(subject),
        lambda: radius_sweep(subject),
        lambda: plateau(subject),
        lambda: finite_differences(exact(), subject.x[few], subject.y[few], a.radius, a.norm, a.seed),
        lambda: transfer(subject, source),
        lambda: within_bounds(subject),
    ]
    done = []
    for check in checks:
        done.append(check())
        on_check(done[-1])
    return done
