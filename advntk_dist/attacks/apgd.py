"""Auto-PGD (Croce & Hein 2020; for l1 Croce & Hein 2021): PGD that sets its own step sizes, untargeted and targeted."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import DifferentiablePredictor, Images, Norm
from advntk_dist.attacks.climb import Climb
from advntk_dist.attacks.geometry import keys_of, random_start
from advntk_dist.attacks.losses import TARGETED, Loss
from advntk_dist.attacks.request import check_request, labels_of
from advntk_dist.attacks.worst import check_restarts, outcomes_of, worst_of
from advntk_dist.errors import RequestError

Rows = NDArray[np.int64]


def apgd(
    predictor: DifferentiablePredictor,
    x: ArrayLike,
    y: ArrayLike,
    *,
    radius: float,
    steps: int = 100,
    step_size: float | None = None,  # noqa: ARG001 -- as all attacks take it
    norm: Norm = "linf",
    seed: int = 0,
    indices: ArrayLike | None = None,
    loss: Loss = "dlr",
    restarts: int = 1,
    towards: ArrayLike | None = None,
) -> Images:
    """Ascend a loss with momentum, halve the step where it no longer helps, and keep the best point.

    An image that is misclassified is done: it takes no more steps and no more starts, so that a step costs what the
    images that are left cost.

    Parameters
    ----------
    predictor, x, y, radius, norm, seed, indices, loss, restarts, towards
        As for :func:`advntk_dist.attacks.pgd`.
    steps
        Gradient steps a start; each takes a value and a gradient, and the start one more.
    step_size
        Not used: steps begin at twice the radius (l1: the radius).

    Returns
    -------
    numpy.ndarray
        Perturbed images, shaped as x, floats in [-0.5, 0.5]: the first misclassified point, or that of largest loss.

    Raises
    ------
    RequestError
        If an argument is impossible.
    """
    clean = check_request(x, radius, steps, 0.0, norm)
    check_restarts(restarts)
    keys = keys_of(indices, len(clean))
    wanted, classes, aims = labels_of(predictor, clean, y, loss, towards)

    def ends(rows: Rows, restart: int) -> Images:
        start = random_start(clean[rows], radius, norm, seed, keys[rows], restart)
        climb = Climb(predictor, start, clean[rows], wanted[rows], aims[rows], radius, norm, loss)
        return climb.run(steps)

    return worst_of(ends, outcomes_of(predictor, loss, wanted, classes, aims), len(clean), restarts)


def apgd_targeted(
    predictor: DifferentiablePredictor,
    x: ArrayLike,
    y: ArrayLike,
    *,
    radius: float,
    steps: int = 100,
    step_size: float | None = None,  # noqa: ARG001 -- as all attacks take it
    norm: Norm = "linf",
    seed: int = 0,
    indices: ArrayLike | None = None,
    loss: Loss = "dlr-targeted",
    restarts: int = 1,
    targets: int = 9,
) -> Images:
    """:func:`apgd` towards each of the likeliest other classes in turn, until an image is misclassified.

    Parameters
    ----------
    predictor, x, y, radius, steps, step_size, norm, seed, indices
        As for :func:`apgd`.
    loss
        "dlr-targeted" or "margin-targeted".
    restarts
        Starts for each class.
    targets
        Classes to move towards, those of largest output on the clean image; all others if there are fewer.

    Returns
    -------
    numpy.ndarray
        Perturbed images, shaped as x, floats in [-0.5, 0.5]: the first misclassified point, or that of largest margin.

    Raises
    ------
    RequestError
        If an argument is impossible.
    """
    clean = check_request(x, radius, steps, 0.0, norm)
    check_restarts(restarts)
    if loss not in TARGETED:
        raise RequestError(f"attack.loss: apgd-targeted takes {' or '.join(TARGETED)}, got {loss!r}")
    if targets < 1:
        raise RequestError(f"attack.targets: must be at least 1, got {targets}")
    keys = keys_of(indices, len(clean))
    wanted, classes, _ = labels_of(predictor, clean, y, "margin")
    f = predictor.predict(clean)
    others = np.argsort(-np.where(np.arange(f.shape[1]) == classes[:, None], -np.inf, f), axis=1, kind="stable")
    labels_of(predictor, clean, y, loss, others[:, 0])
    count = min(targets, f.shape[1] - 1)

    def ends(rows: Rows, attempt: int) -> Images:
        start = random_start(clean[rows], radius, norm, seed, keys[rows], attempt)
        aims = others[rows, attempt % count]
        return Climb(predictor, start, clean[rows], wanted[rows], aims, radius, norm, loss).run(steps)

    margins = outcomes_of(predictor, "margin", wanted, classes, np.zeros_like(classes))
    return worst_of(ends, margins, len(clean), count * restarts)
