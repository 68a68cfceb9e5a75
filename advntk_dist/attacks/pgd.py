"""Projected gradient descent as the field defines it (Madry et al. 2018)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import DifferentiablePredictor, Images, Norm
from advntk_dist.attacks.geometry import ascent_direction, keys_of, project, random_start
from advntk_dist.attacks.loss_gradients import check_request, labels_of, value_and_slope
from advntk_dist.attacks.losses import Loss
from advntk_dist.attacks.on_device import AscendingPredictor, LossAscendingPredictor
from advntk_dist.attacks.restarts import check_restarts, outcomes_of, worst_of


def pgd(
    predictor: DifferentiablePredictor,
    x: ArrayLike,
    y: ArrayLike,
    *,
    radius: float,
    steps: int = 10,
    step_size: float | None = None,
    norm: Norm = "linf",
    seed: int = 0,
    indices: ArrayLike | None = None,
    loss: Loss = "margin",
    restarts: int = 1,
    towards: ArrayLike | None = None,
) -> Images:
    """Maximise a loss within a ball around the clean images.

    From a random start; each step takes the gradient at the current iterate and projects onto the ball
    around the clean image and onto the pixel range. Kernel predictors take all steps on the device; any other
    differentiable predictor is asked for values and gradients step by step.

    Parameters
    ----------
    predictor
        What is attacked.
    x
        Clean images (m, H, W, C): uint8, or floats in [-0.5, 0.5].
    y
        Labels (m,), or targets (m, k).
    radius, step_size
        In units of the pixel range (8/255 means 8/255); the step size is by default a fifth of the radius.
    steps
        Gradient steps; with 0 the random start is returned.
    norm
        "linf", "l2" or "l1"; steps in l1 go along the largest hundredth of the gradient (Tramer & Boneh 2019).
    seed, indices
        The random start of image i is drawn from a stream keyed by (seed, indices[i]); by default i itself.
    loss
        A name of :data:`advntk_dist.attacks.losses.Loss`.
    restarts
        Random starts. Of several, each image keeps its worst end: misclassified first, then of larger loss; images
        that are misclassified already are not started again.
    towards
        Classes (m,) that targeted losses move towards.

    Returns
    -------
    numpy.ndarray
        Perturbed images, shaped as x, floats in [-0.5, 0.5].

    Raises
    ------
    RequestError
        If an argument is impossible.
    """
    size = radius / 5 if step_size is None else step_size
    clean = check_request(x, radius, steps, size, norm)
    check_restarts(restarts)
    keys = keys_of(indices, len(clean))
    wanted, classes, aims = labels_of(predictor, clean, y, loss, towards)

    def ends(rows: NDArray[np.int64], restart: int) -> Images:
        start = random_start(clean[rows], radius, norm, seed, keys[rows], restart)
        return _climb(predictor, start, clean[rows], wanted[rows], aims[rows], radius, steps, size, norm, loss)

    return worst_of(ends, outcomes_of(predictor, loss, wanted, classes, aims), len(clean), restarts)


def _climb(
    predictor: DifferentiablePredictor,
    start: Images,
    clean: Images,
    wanted: NDArray[np.float64],
    towards: NDArray[np.int64],
    radius: float,
    steps: int,
    size: float,
    norm: Norm,
    loss: Loss,
) -> Images:
    if steps and isinstance(predictor, LossAscendingPredictor) and predictor.dtype == clean.dtype:
        return predictor.ascend(
            start, clean, wanted, radius=radius, steps=steps, step_size=size, norm=norm, loss=loss, towards=towards
        )
    simple = loss == "squared-error" and norm != "l1"
    if steps and simple and isinstance(predictor, AscendingPredictor) and predictor.dtype == clean.dtype:
        return predictor.ascend(start, clean, wanted, radius=radius, steps=steps, step_size=size, norm=norm)
    current = start
    for _ in range(steps):
        _, _, gradient = value_and_slope(predictor, current, wanted, loss=loss, towards=towards)
        current = project(
            current + size * ascent_direction(gradient, norm, current).astype(clean.dtype), clean, radius, norm
        )
    return current
