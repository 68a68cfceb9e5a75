"""Losses of a predictor and their gradients in the images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import DifferentiablePredictor, FusedPredictor, Images
from advntk_dist.attacks.losses import Loss, loss_and_slope
from advntk_dist.attacks.request import targets_of


def loss_gradient(predictor: DifferentiablePredictor, x: Images, y: ArrayLike) -> Images:
    """Gradient in x of the squared error 1/2 || f(x) - y ||^2, the loss of the paper's attacks."""
    f = predictor.predict(x)
    return predictor.vjp(x, f - targets_of(y, len(x), f.shape[1]))


def value_and_slope(
    predictor: DifferentiablePredictor,
    x: Images,
    wanted: NDArray[np.float64],
    *,
    loss: Loss = "squared-error",
    towards: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], Images]:
    """Outputs, losses, and the gradients of the losses in the images; fused where the predictor can.

    Parameters
    ----------
    predictor
        A kernel predictor, or anything with values and gradients.
    x
        Images (m, H, W, C).
    wanted
        Targets (m, k), from :func:`targets_of`.
    loss, towards
        As :func:`advntk_dist.attacks.losses.loss_and_slope` takes them; ``towards`` may be left out where there is
        none.

    Returns
    -------
    f, value, gradient
        (m, k) and (m,) float64, and an array shaped as x.
    """
    if isinstance(predictor, FusedPredictor):
        return predictor.value_and_slope(x, wanted, loss=loss, towards=towards)
    f = predictor.predict(x)
    value, slope = loss_and_slope(loss, f, wanted, towards)
    return f, value, predictor.vjp(x, slope)
