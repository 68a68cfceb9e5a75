"""Checks that attack (Athalye et al. 2018; Carlini et al. 2019), one function a check, on the same images.

Each names its value and its criterion. Where one attack should break every image that another breaks, they are compared
image by image, so that gains do not pay for losses, and an exact test says whether the other breaks more alone than one
image in a hundred (:func:`~advntk_dist.evaluation.examined_predictor.allowed`): two attacks end in different local
maxima of a few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import numpy as np

from advntk_dist.attacks import registry
from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import largest_distance, rounding_of
from advntk_dist.config import AttackConfig
from advntk_dist.evaluation.examined_predictor import (
    LEVEL,
    RATE,
    Check,
    ExaminedPredictor,
    Flags,
    Outcome,
    allowed,
    criterion,
)
from advntk_dist.evaluation.gradient_checks import finite_differences, single_precision

MULTIPLES = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
"""Radii of the sweep, as multiples of the run's; the last one of all is the whole pixel range."""
PLAIN = "margin"
"""Loss of the plain attacks: of the faults of squared error and cross-entropy it has none that depends on scale."""
STEPS = 20
"""Steps of the plain PGD."""
AUTO_STEPS = 50
"""Steps of the Auto-PGD that goes with it."""
TARGETS = 3
"""Classes that it also moves towards: without them it misses images of sharp predictors that more starts break."""


def single_step(subject: ExaminedPredictor) -> Check:
    """Iterative attacks are not weaker than one step of the same loss."""
    step, usual = registry.SINGLE_STEP, registry.PLAIN
    one, many = subject.under(subject.config(step.name, loss=PLAIN)), subject.under(plain_pgd(subject))
    return _alone(
        "iterative attack not weaker than a single step",
        (usual.title, many.robust),
        (step.title, one.robust),
        (usual.name, step.name),
    )


def black_box(subject: ExaminedPredictor, queries: int = 1000) -> Check:
    """Square, which asks for outputs only, breaks no image that attacks with gradients do not break."""
    name, black, norm = "white box not weaker than black box", registry.BLACK_BOX, subject.attack.norm
    if norm not in black.norms:
        return Check(name, True, f"there is no {black.title} in {norm}", "not examined")
    found = subject.under(subject.config(black.name, queries=queries)).robust
    return _alone(name, ("PGD and APGD", white_box(subject)), (black.title, found), ("white_box", black.name))


def radius_sweep(subject: ExaminedPredictor) -> Check:
    """Accuracy falls with the radius, and no image is robust where the attack may choose any image."""
    whole = largest_distance(subject.x, subject.attack.norm)
    radii = [r for m in MULTIPLES if (r := m * subject.attack.radius) < whole] + [whole]
    flags = [subject.clean, *(_strongest(subject, r).robust for r in radii)]
    robust = [float(f.mean()) for f in flags]
    risen = max(int((wide & ~narrow).sum()) for narrow, wide in pairwise(flags))
    kept, n = int(flags[-1].sum()), len(subject.y)
    shown = ", ".join(f"{r:.3g}: {100 * a:.1f}%" for r, a in zip([0.0, *radii], robust, strict=True))
    return Check(
        "accuracy falls to 0 as the radius grows",
        max(risen, kept) <= allowed(n),
        f"{shown}; robust at a radius and broken at the one before at most {risen} of {n}",
        f"of images that are robust again at the next radius, and of those that are at the pixel range, {criterion(n)}",
        {"radii": [0.0, *radii], "robust": robust, "again": risen},
    )


def plateau(subject: ExaminedPredictor, steps: int = 100, restarts: int = 5) -> Check:
    """The attacks that the other checks rely on have converged: more steps and more starts of them break nothing more.

    They are held together, as they are relied on: that Auto-PGD breaks what PGD from one start does not says nothing.
    """
    usual = white_box(subject)
    more = _robust_under(
        subject, [plain_pgd(subject, steps=steps, restarts=restarts, share=0.05), *apgd(subject, 2 * AUTO_STEPS)]
    )
    return _alone(
        "more steps and restarts change nothing",
        (f"PGD-{STEPS} and APGD-{AUTO_STEPS}", usual),
        (f"PGD-{steps} from {restarts} starts and APGD-{2 * AUTO_STEPS}", more),
        ("white_box", "more"),
    )


def transfer(subject: ExaminedPredictor, source: DifferentiablePredictor) -> Check:
    """Examples made on another predictor break no image that attacks on this one do not break."""
    white = white_box(subject)
    attack = plain_pgd(subject)
    borrowed = subject.judge(attack, subject.examples(source, attack)).robust
    name = "transfer from the ntk predictor not stronger"
    return _alone(name, ("PGD and APGD", white), ("transfer", borrowed), ("white_box", "transfer"))


def within_bounds(subject: ExaminedPredictor) -> Check:
    """Every single image of every attack so far lies within its radius and within the pixel range."""
    rounding = rounding_of(subject.x, subject.attack.norm)
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


def white_box(subject: ExaminedPredictor) -> Flags:
    """Images (n,) that are robust under plain PGD and APGD, untargeted and targeted."""
    return _robust_under(subject, [plain_pgd(subject), *apgd(subject)])


def plain_pgd(subject: ExaminedPredictor, *, steps: int = STEPS, restarts: int = 1, share: float = 0.1) -> AttackConfig:
    """PGD of the margin from a random start, steps of a tenth of the radius unless told otherwise."""
    size = share * subject.attack.radius
    return subject.config(registry.PLAIN.name, loss=PLAIN, steps=steps, restarts=restarts, step_size=size)


def apgd(subject: ExaminedPredictor, steps: int = AUTO_STEPS) -> list[AttackConfig]:
    """APGD as tier ``standard`` has it: two losses that no scale of the outputs changes, and towards three classes."""
    strength = registry.Tier("that of the checks", steps, TARGETS)
    found = registry.tier(strength, subject.attack.norm, subject.classes, white_box=True)
    return [subject.config(**keys) for keys in found]


def _robust_under(subject: ExaminedPredictor, attacks: Sequence[AttackConfig]) -> Flags:
    """Images (n,) that are robust under all of the attacks."""
    return np.asarray(np.logical_and.reduce([subject.under(a).robust for a in attacks]))


def _strongest(subject: ExaminedPredictor, radius: float) -> Outcome:
    return subject.under(subject.config(registry.STRONGEST.name, loss=PLAIN, steps=AUTO_STEPS, radius=radius))


def _alone(name: str, usual: tuple[str, Flags], other: tuple[str, Flags], keys: tuple[str, str]) -> Check:
    """The other attack breaks no more images alone than allowed; each is a title and the images (n,) robust."""
    (title, robust), (other_title, other_robust) = usual, other
    n, alone = len(robust), int((robust & ~other_robust).sum())
    found = {keys[0]: float(robust.mean()), keys[1]: float(other_robust.mean())}
    return Check(
        name,
        alone <= allowed(n),
        f"robust under {title} {100 * found[keys[0]]:.1f}%, under {other_title} {100 * found[keys[1]]:.1f}%; broken by "
        f"{other_title} alone {alone} of {n}",
        f"{other_title} alone breaks {criterion(n)}",
        found | {f"{keys[1]}_alone": alone / n, "test": {"rate": RATE, "level": LEVEL, "allowed": allowed(n)}},
    )


def checklist(
    subject: ExaminedPredictor,
    source: DifferentiablePredictor,
    exact: Callable[[], DifferentiablePredictor],
    *,
    exact_images: int = 8,
    on_check: Callable[[Check], None] = lambda check: None,
) -> list[Check]:
    """All eight checks, in the order of the list.

    Parameters
    ----------
    subject
        The predictor that is examined.
    source
        The predictor that examples are transferred from.
    exact
        Makes the examined predictor in float64.
    exact_images
        Images on which gradients are examined: the first that are classified correctly, and the first of all where
        there is none.
    on_check
        Called after each check.
    """
    a = subject.attack
    right = np.flatnonzero(subject.clean)
    few = right[:exact_images] if len(right) else np.arange(min(exact_images, len(subject.y)))
    x, y = subject.x[few], subject.y[few]
    precise = cache(exact)
    checks: list[Callable[[], Check]] = [
        lambda: single_step(subject),
        lambda: black_box(subject),
        lambda: radius_sweep(subject),
        lambda: plateau(subject),
        lambda: finite_differences(precise(), x, y, a.radius, a.norm, a.seed),
        lambda: single_precision(subject.predictor, precise(), x, y, a.radius, a.norm, a.seed),
        lambda: transfer(subject, source),
        lambda: within_bounds(subject),
    ]
    done = []
    for check in checks:
        done.append(check())
        on_check(done[-1])
    return done
