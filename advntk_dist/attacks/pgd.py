"""Projected gradient descent as the field defines it (Madry et al. 2018), its single step, FGSM, and the paper's."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from advntk_dist.attacks.base import DifferentiablePredictor
from advntk_dist.attacks.geometry import HIGH, LOW, Images
from advntk_dist.attacks.registry import PAPER
from advntk_dist.attacks.request import AttackRequest, Rows
from advntk_dist.spec import Loss, Norm, step_length


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
        The predictor under attack.
    x
        Clean images (m, H, W, C): uint8, or floats in [-0.5, 0.5].
    y
        Labels (m,), or targets (m, k).
    radius, step_size
        In units of the pixel range (8/255 means 8/255); the step size is by default a fifth of the radius.
    steps
        Number of gradient steps; with 0 the random start is returned.
    norm
        "linf", "l2" or "l1"; steps in l1 go along the largest hundredth of the gradient (Tramer & Boneh 2019).
    seed, indices
        The random start of image i is drawn from a stream keyed by (seed, indices[i]); by default i itself.
    loss
        A name of :data:`advntk_dist.spec.Loss`.
    restarts
        Number of random starts. Of several, each image keeps its worst result: misclassified first, then of larger
        loss; images that are misclassified already are not started again.
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
    size = step_length(radius, step_size)
    request = AttackRequest.of(
        predictor, x, y, radius=radius, steps=steps, step_size=size, norm=norm, seed=seed, indices=indices, loss=loss,
        restarts=restarts, towards=towards,
    )  # fmt: skip

    def attempt(part: AttackRequest, _rows: Rows, restart: int) -> Images:
        return part.ascend(part.random_start(restart), steps, size)

    return request.worst_of(attempt, restarts)


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
    """One step of steepest ascent of a loss, from the clean image or from a random start (Goodfellow et al. 2015).

    What is not named here, the result and the errors are those of :func:`pgd`.

    Parameters
    ----------
    steps
        Not used: there is one step.
    step_size
        Length of the step; by default the radius.
    restarts
        Number of starts: with more than one, the further ones are random, and each image keeps the worst result.
    random
        Whether the first start is random, too (Wong et al. 2020, who take steps of 1.25 times the radius).
    """
    size = radius if step_size is None else step_size
    request = AttackRequest.of(
        predictor, x, y, radius=radius, steps=1, step_size=size, norm=norm, seed=seed, indices=indices, loss=loss,
        restarts=restarts, towards=towards,
    )  # fmt: skip

    def attempt(part: AttackRequest, _rows: Rows, restart: int) -> Images:
        return part.ascend(part.random_start(restart) if random or restart else part.clean, 1, size)

    return request.worst_of(attempt, restarts)


def pgd_reference(
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
    loss: Loss = "squared-error",
    restarts: int = 1,
) -> Images:
    """The JAX attack of the paper's own code, for comparing with published numbers; it is not PGD.

    One gradient at the random start is used in every step, in a ball around the random start, so that the result may
    lie up to twice the radius from the clean image. Parameters and errors are those of :func:`pgd`; the norm must be
    "linf", the loss the squared error, from one start.
    """
    size = step_length(radius, step_size)
    request = AttackRequest.of(
        predictor, x, y, radius=radius, steps=steps, step_size=size, norm=norm, seed=seed, indices=indices, loss=loss,
        restarts=restarts,
    )  # fmt: skip
    PAPER.require_possible(norm=norm, loss=loss, restarts=restarts)
    start = request.random_start(0)
    if not steps:
        return start
    direction = np.sign(request.predictor.value_and_slope(start, request.wanted)[2])
    current = start
    for _ in range(steps):
        moved = current + direction.dtype.type(size) * direction
        current = np.clip(np.clip(moved, start - radius, start + radius), LOW, HIGH).astype(start.dtype)
    return current
