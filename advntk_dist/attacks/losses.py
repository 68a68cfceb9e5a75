"""Losses that attacks maximise, as values and slopes in the outputs; of NumPy or JAX arrays.

An attack multiplies the slope d loss / d f by d f / d x. Outputs of kernel predictors are often tiny, so no loss here
has a scale of its own: of the margin only the direction of the slope matters, and the difference of logits ratio and
the cross-entropy do not change when the outputs of an image are multiplied by a positive number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.errors import RequestError
from advntk_dist.spec import LOSSES, TARGETED, Loss

LEAST_OUTPUTS: dict[Loss, int] = {
    "squared-error": 1,
    "margin": 2,
    "dlr": 3,
    "cross-entropy": 2,
    "margin-targeted": 2,
    "dlr-targeted": 4,
}
"""Outputs that a loss needs at least."""

SPREAD = 10.0
"""Largest minus smallest logit of an image in the cross-entropy: the order of what trained networks give."""


def loss_and_slope(loss: Loss, f: Any, wanted: Any, towards: Any) -> tuple[Any, Any]:
    """Value (m,) and slope d value / d f (m, k) of a loss of each image; larger is worse for the predictor.

    ===============  =================================================================================================
    squared-error    1/2 || f - wanted ||^2, the loss of the paper's attacks
    margin           max_{j != y} f_j - f_y: positive where an image is misclassified (Carlini & Wagner 2017)
    dlr              margin / (f_(1) - f_(3)), f_(i) the i-th largest output (Croce & Hein 2020, equation 6)
    cross-entropy    log sum_j exp(g_j - g_y) of g = SPREAD f / (max f - min f)
    margin-targeted  f_t - f_y
    dlr-targeted     (f_t - f_y) / (f_(1) - (f_(3) + f_(4)) / 2) (Croce & Hein 2020, equation 7)
    ===============  =================================================================================================

    Slopes are those of the whole expression, denominators included. Where a denominator is 0 the value is 0, and
    the slope that of the numerator.

    Parameters
    ----------
    loss
        One of the names above; not traced.
    f
        Outputs (m, k), NumPy or JAX.
    wanted
        Targets (m, k); y is the column of the largest one. One-hot rows, unless the loss is the squared error.
    towards
        t, (m,) integers; only targeted losses look at it.
    """
    xp = f.__array_namespace__()
    if loss == "squared-error":
        slope = f - wanted
        return 0.5 * (slope**2).sum(axis=1), slope
    columns = xp.arange(f.shape[1])
    right = _one_hot(wanted.argmax(axis=1), columns, f)
    if loss == "cross-entropy":
        return _cross_entropy(xp, f, right, columns)
    other = _one_hot(towards if loss in TARGETED else xp.where(right > 0, -xp.inf, f).argmax(axis=1), columns, f)
    above_slope = other - right
    above = (f * above_slope).sum(axis=1)
    if loss in ("margin", "margin-targeted"):
        return above, above_slope
    order = xp.argsort(f, axis=1)
    first, third = (_one_hot(order[:, -i], columns, f) for i in (1, 3))
    below_slope = first - third if loss == "dlr" else first - 0.5 * (third + _one_hot(order[:, -4], columns, f))
    return _ratio(xp, above, above_slope, (f * below_slope).sum(axis=1), below_slope)


def check_loss(loss: str, outputs: int, y: NDArray[Any], towards: ArrayLike | None) -> NDArray[np.int64]:
    """The classes (m,) to move towards (zeros where the loss has none), once the loss is seen to be possible.

    Parameters
    ----------
    loss
        A loss's name.
    outputs
        k.
    y
        True classes (m,).
    towards
        Classes to move towards (m,), for targeted losses.

    Raises
    ------
    RequestError
        If there is no such loss, if it needs more outputs, or if ``towards`` does not fit it.
    """
    if loss not in LOSSES:
        raise RequestError(f"attack.loss: no loss {loss!r}; there are {', '.join(LOSSES)}")
    if outputs < (least := LEAST_OUTPUTS[loss]):  # type: ignore[index]
        instead = "squared-error" if outputs < 2 else "margin-targeted" if loss in TARGETED else "margin"
        raise RequestError(
            f"attack.loss: {loss} needs at least {least} outputs, the predictor has {outputs}; choose {instead}"
        )
    if (towards is not None) != (loss in TARGETED):
        word = "needs one class an image to move towards" if towards is None else "moves towards no class"
        raise RequestError(f"attack.loss: {loss} {word}; targeted losses are {', '.join(TARGETED)}")
    if towards is None:
        return np.zeros(len(y), np.int64)
    t = np.asarray(towards)
    if t.shape != y.shape or t.dtype.kind not in "iu" or not ((t >= 0) & (t < outputs) & (t != y)).all():
        raise RequestError(
            f"attack: towards must hold one class for each of {len(y)} images, from 0 to {outputs - 1} and not its own"
        )
    return t.astype(np.int64)


def _one_hot(index: Any, columns: Any, like: Any) -> Any:
    return (columns[None, :] == index[:, None]).astype(like.dtype)


def _ratio(xp: Any, above: Any, above_slope: Any, below: Any, below_slope: Any) -> tuple[Any, Any]:
    """Value and slope of above / below."""
    safe = xp.where(below > 0, below, 1.0)
    value = xp.where(below > 0, above / safe, 0.0)
    return value, (above_slope - value[:, None] * below_slope) / safe[:, None]


def _cross_entropy(xp: Any, f: Any, right: Any, columns: Any) -> tuple[Any, Any]:
    spread_slope = _one_hot(f.argmax(axis=1), columns, f) - _one_hot(f.argmin(axis=1), columns, f)
    spread = (f * spread_slope).sum(axis=1)[:, None]
    scale = SPREAD / xp.where(spread > 0, spread, 1.0)
    # Shifted first: what all outputs of an image share has no part in it, and may be larger than their differences.
    shifted = f - f.max(axis=1)[:, None]
    exponentials = xp.exp(scale * shifted)
    total = exponentials.sum(axis=1)
    value = xp.log(total) - scale[:, 0] * (right * shifted).sum(axis=1)
    slope = scale * (exponentials / total[:, None] - right)
    through_scale = (slope * shifted).sum(axis=1)[:, None] / xp.where(spread > 0, spread, 1.0)
    return value, slope - through_scale * spread_slope * (spread > 0)
