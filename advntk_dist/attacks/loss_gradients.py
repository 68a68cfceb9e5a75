"""What an attack is asked for, in one form; losses of a predictor and their gradients in the images."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.base import DifferentiablePredictor, FusedPredictor, Images, Norm
from advntk_dist.attacks.losses import Loss, check_loss, loss_and_slope
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.errors import RequestError


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


def check_request(x: ArrayLike, radius: float, steps: int, step_size: float, norm: str) -> Images:
    """Images as floats, once the other arguments are seen to be possible.

    Raises
    ------
    RequestError
        If they are not.
    """
    if norm not in get_args(Norm):
        raise RequestError(f"attack.norm: no norm {norm!r}; there are {', '.join(get_args(Norm))}")
    if not (0 <= radius < np.inf and 0 <= step_size < np.inf and steps >= 0):
        raise RequestError(
            f"attack: radius, steps and step_size must be finite and >= 0, got {radius}, {steps} and {step_size}"
        )
    return to_unit_range(np.asarray(x))


def targets_of(y: ArrayLike, images: int, outputs: int) -> NDArray[np.float64]:
    """:func:`targets`, one row an image.

    Raises
    ------
    RequestError
        If there is not one label an image, or :func:`targets` does not understand them.
    """
    rows = targets(y, outputs)
    if len(rows) != images:
        raise RequestError(f"attack: {images} images, but {len(rows)} labels")
    return rows


def targets(y: ArrayLike, outputs: int) -> NDArray[np.float64]:
    """Labels (m,) as one-hot rows (m, outputs); rows that are given already pass through.

    Raises
    ------
    RequestError
        If y is neither labels in 0..outputs-1 nor rows of that many numbers.
    """
    array = np.asarray(y)
    if array.ndim == 1 and array.dtype.kind in "iu" and (array < outputs).all() and (array >= 0).all():
        return np.asarray(np.eye(outputs)[array])
    if array.ndim == 2 and array.shape[1] == outputs:
        return array.astype(np.float64)
    raise RequestError(
        f"attack: labels must be integers from 0 to {outputs - 1}, or rows of {outputs} targets; "
        f"got {array.dtype} of shape {array.shape}"
    )


def labels_of(
    predictor: DifferentiablePredictor, x: Images, y: ArrayLike, loss: Loss, towards: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Targets (m, k), true classes (m,) and classes to move towards (m,), once they fit loss and predictor.

    Raises
    ------
    RequestError
        If they do not.
    """
    outputs = getattr(predictor, "outputs", None) or predictor.predict(x[:1]).shape[1]
    wanted = targets_of(y, len(x), outputs)
    classes = wanted.argmax(axis=1)
    return wanted, classes, check_loss(loss, outputs, classes, towards)
