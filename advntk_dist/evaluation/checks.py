"""Checks that attack (Athalye et al. 2018; Carlini et al. 2019), one function a check, on the same images.

Each names its value and its criterion. Attacks may differ by a point, or by one image where a point is less than that
(:func:`~advntk_dist.evaluation.verdict.tolerance`): two attacks end in different local maxima of a few images. Where
one must fell nothing that another leaves they are compared image by image, so that gains do not pay for losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from advntk_dist.attacks.base import DifferentiablePredictor, Images, Norm
from advntk_dist.config import AttackConfig
from advntk_dist.evaluation.subject import Flags, Outcome, Subject
from advntk_dist.evaluation.tiers import auto_pgd
from advntk_dist.evaluation.verdict import Check, tolerance

MULTIPLES = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
"""Radii of the sweep, as multiples of the run's; the last one of all is the whole pixel range."""
PLAIN = "margin"
"""Loss of the plain attacks: of the faults of squared error and cross-entropy it has none that depends on scale."""
STEPS = 20
"""Steps of the plain PGD."""
AUTO_STEPS = 50
"""Steps of the Auto-PGD that goes with it."""
TARGETS = 3
"""Classes that it also moves towards: without them it leaves images of sharp predictors that more starts fell."""


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
    """The attacks that the other checks rely on have converged: more steps and more starts of them fell nothing more.

    They are held together, as they are relied on: what PGD from one start leaves and Auto-PGD fells says nothing.
    """
    usual = white_box(subject)
    more = _left(
        subject, [plain_pgd(subject, steps=steps, restarts=restarts, share=0.05), *apgd(subject, 2 * AUTO_STEPS)]
    )
    only, slack = float((usual & ~more).mean()), tolerance(len(subject.y))
    return Check(
        "more steps and restarts change nothing",
        only <= slack,
        f"PGD-{STEPS} and APGD-{AUTO_STEPS} {100 * usual.mean():.1f}%, felled by more alone {100 * only:.1f}%",
        f"PGD-{steps} from {restarts} starts and APGD-{2 * AUTO_STEPS} alone fell at most {100 * slack:.3g}%",
        {"white_box": float(usual.mean()), "more": float(more.mean()), "more_alone": only},
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


def white_box(subject: Subject) -> Flags:
    """Images (n,) that plain PGD and APGD, untargeted and targeted, leave."""
    return _left(subject, [plain_pgd(subject), *apgd(subject)])


def plain_pgd(subject: Subject, *, steps: int = STEPS, restarts: int = 1, share: float = 0.1) -> AttackConfig:
    """PGD of the margin from a random start, steps of a tenth of the radius unless told otherwise."""
    size = share * subject.attack.radius
    return subject.config("pgd", loss=PLAIN, steps=steps, restarts=restarts, step_size=size)


def apgd(subject: Subject, steps: int = AUTO_STEPS) -> list[AttackConfig]:
    """APGD as tier ``standard`` has it: two losses that no scale of the outputs changes, and towards three classes."""
    return [subject.config(**keys) for keys in auto_pgd(subject.classes, steps, targets=TARGETS)]


def _left(subject: Subject, attacks: Sequence[AttackConfig]) -> Flags:
    """Images (n,) that all of the attacks leave."""
    return np.asarray(np.logical_and.reduce([subject.under(a).left for a in attacks]))


def _strongest(subject: Subject, radius: float) -> Outcome:
    return subject.under(subject.config("apgd", loss=PLAIN, steps=AUTO_STEPS, radius=radius))


def _whole_range(x: Images, norm: Norm) -> float:
    """The radius within which every image lies of every other."""
    pixels = float(np.prod(x.shape[1:]))
    return {"linf": 1.0, "l2": pixels**0.5, "l1": pixels}[norm]


def _percent(outcome: Outcome) -> str:
    return f"{100 * outcome.accuracy:.1f}%"
