"""The gradient-masking checklist (Athalye et al. 2018; Carlini et al. 2019): all checks, in order."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.evaluation.checks import black_box, plateau, radius_sweep, single_step, transfer, within_bounds
from advntk_dist.evaluation.gradients import finite_differences, single_precision
from advntk_dist.evaluation.subject import Subject
from advntk_dist.evaluation.verdict import Check


def checklist(
    subject: Subject,
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
