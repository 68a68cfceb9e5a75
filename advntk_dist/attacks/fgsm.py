"""The fast gradient sign method (Goodfellow et al. 2015), in any norm: one gradient, one step."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import DifferentiablePredictor, Images, Norm
from advntk_dist.attacks.geometry import ascent_direction, keys_of, project, random_start
from advntk_dist.attacks.loss_gradients import check_request, labels_of, value_and_slope
from advntk_dist.attacks.losses import Loss
from advntk_dist.attacks.restarts import check_restarts, outcomes_of, worst_of


def fgsm(
    predictor: DifferentiablePredictor,
    x: ArrayLike,
    y: ArrayLike,
    *,
    radius: float,
    steps: int = 1,  # noqa: ARG001 -- as all attacks take it
    step_size: float | None = None,
    norm: Norm = "linf",
    seed: int = 0,
    indices: ArrayLike | None = None,
    loss: Loss = "margin",
    restarts: int = 1,
    towards: ArrayLike | None = None,
    random: bool = False,
) -> Images:
    """One step of steepest ascent of a loss, from the clean image or from a random start.

    Parameters
    ----------
    predictor, x, y, radius, norm, seed, indices, loss, towards
        As for :func:`advntk_dist.attacks.pgd`.
    steps
        Not used: there is one.
    step_size
        By default the radius.
    restarts
        With more than one, the further ones are from random starts; each image keeps the worst.
    random
        Whether the first one is from a random start, too (Wong et al. 2020, who take steps of 1.25 times the radius).

    Returns
    -------
    numpy.ndarray
        Perturbed images, shaped as x, floats in [-0.5, 0.5].

    Raises
    ------
    RequestError
        If an argument is impossible.
    """
    size = radius if step_size is None else step_size
    clean = check_request(x, radius, 1, size, norm)
    check_restarts(restarts)
    keys = keys_of(indices, len(clean))
    wanted, classes, aims = labels_of(predictor, clean, y, loss, towards)

    def ends(rows: NDArray[np.int64], restart: int) -> Images:
        start = clean[rows]
        if random or restart:
            start = random_start(start, radius, norm, seed, keys[rows], restart)
        _, _, gradient = value_and_slope(predictor, start, wanted[rows], loss=loss, towards=aims[rows])
        direction = ascent_direction(gradient, norm, start).astype(clean.dtype)
        return project(start + size * direction, clean[rows], radius, norm)

    return worst_of(ends, outcomes_of(predictor, loss, wanted, classes, aims), len(clean), restarts)
