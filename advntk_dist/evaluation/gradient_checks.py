"""Checks of input gradients: against differences in float64, and those of attacks in float32 against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import Images, random_start
from advntk_dist.attacks.losses import LEAST_OUTPUTS, loss_and_slope
from advntk_dist.attacks.registry import UNTARGETED
from advntk_dist.attacks.request import targets
from advntk_dist.evaluation.examined_predictor import Check
from advntk_dist.spec import Norm

SLOPE_ERROR = 1e-4
"""Relative difference allowed between input gradients and finite differences, both in float64."""
STEP = 1e-4
"""Half the distance of the two points of a difference, Euclidean norm."""
INSIDE = 0.999
"""Factor that takes images to where both points of a difference lie in the pixel range."""
DIRECTION_ERROR = 1e-6
"""1 - cosine that is allowed between gradients in float32 and in float64: 5e-9 at most on digits and CIFAR-10 with
MLP-3, whatever the method; 2e-6 where gradients keep no more than the 8 bits of bfloat16."""
SIGN_ERROR = 1e-3
"""Share of the absolute gradient on entries whose sign may differ: tiny entries flip, and no attack feels it."""


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
    wanted = targets(y, predictor.predict(points[:1]).shape[1], len(points))

    def loss(at: Images) -> Any:
        return predictor.value_and_slope(at, wanted)[1]

    gradient = np.asarray(predictor.value_and_slope(points, wanted)[2], np.float64)
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


def single_precision(
    predictor: DifferentiablePredictor,
    exact: DifferentiablePredictor,
    x: Images,
    y: NDArray[np.int64],
    radius: float,
    norm: Norm,
    seed: int = 0,
) -> Check:
    """Input gradients of each loss, as attacks get them, have the direction of those in float64 at the same points.

    Parameters
    ----------
    predictor
        What attacks ask, in its own precision.
    exact
        The same predictor, computing in float64.
    x, y
        A few images (m, H, W, C) and labels (m,). Points at random within the radius are examined, where the image is
        still classified correctly: from others no attack goes on, and the gradient of the difference of logits ratio
        is 0 by its definition where the true class is third.
    radius, norm, seed
        Of those points.
    """
    points = random_start(np.asarray(x), radius, norm, seed, None)
    outputs = exact.predict(points.astype(np.float64))
    right = outputs.argmax(axis=1) == y
    points, f = points[right], outputs[right]
    wanted = targets(y[right], f.shape[1], len(points))
    turned = flipped = 0.0
    lost = 0
    losses = [loss for loss in UNTARGETED if f.shape[1] >= LEAST_OUTPUTS[loss]] if len(points) else []
    for loss in losses:
        given = predictor.value_and_slope(points, wanted, loss=loss)[2]
        true = exact.vjp(points.astype(np.float64), loss_and_slope(loss, f, wanted, None)[1])
        useless, angle, signs = _compared(given, true)
        lost, turned, flipped = lost + useless, max(turned, angle), max(flipped, signs)
    return Check(
        "input gradients in float32 match float64",
        bool(len(points)) and lost == 0 and turned <= DIRECTION_ERROR and flipped <= SIGN_ERROR,
        f"1 - cosine at most {turned:.1e}, another sign on at most {flipped:.1e} of a gradient, {lost} of "
        f"{len(losses) * len(points)} are 0 or not finite ({', '.join(losses)}; {len(points)} images)",
        f"at most {DIRECTION_ERROR:g} and {SIGN_ERROR:g} for each loss, none 0 or not finite, at least one image",
        {"turned": turned, "flipped": flipped, "lost": lost, "losses": losses, "images": len(points)},
    )


def _compared(given: NDArray[Any], true: NDArray[Any]) -> tuple[int, float, float]:
    """Gradients that are 0 or not finite; of the others largest 1 - cosine, and largest share with another sign."""
    a, b = (np.asarray(g, np.float64).reshape(len(g), -1) for g in (given, true))
    fine = np.isfinite(a).all(axis=1) & (a != 0).any(axis=1) & (b != 0).any(axis=1)
    if not fine.any():
        return int((~fine).sum()), 0.0, 0.0
    # Each by its largest entry first: squares of tiny gradients would vanish.
    a, b = (g[fine] / np.abs(g[fine]).max(axis=1, keepdims=True) for g in (a, b))
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    share = (np.abs(b) * (np.sign(a) != np.sign(b))).sum(axis=1) / np.abs(b).sum(axis=1)
    return int((~fine).sum()), float(max(0.0, (1 - cosine).max())), float(share.max())
