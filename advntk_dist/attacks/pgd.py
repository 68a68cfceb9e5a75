"""Projected gradient descent as the field defines it (Madry et al. 2018), and its single step, FGSM."""

from __future__ import annotations

from numpy.typing import ArrayLike

from advntk_dist.attacks.base import DifferentiablePredictor, Images, Loss, Norm
from advntk_dist.attacks.request import AttackRequest, Rows


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
    size = radius / 5 if step_size is None else step_size
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

    Parameters
    ----------
    predictor, x, y, radius, norm, seed, indices, loss, towards
        As for :func:`pgd`.
    steps
        Not used: there is one step.
    step_size
        Length of the step; by default the radius.
    restarts
        Number of starts: with more than one, the further ones are random, and each image keeps the worst result.
    random
        Whether the first start is random, too (Wong et al. 2020, who take steps of 1.25 times the radius).

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
    request = AttackRequest.of(
        predictor, x, y, radius=radius, steps=1, step_size=size, norm=norm, seed=seed, indices=indices, loss=loss,
        restarts=restarts, towards=towards,
    )  # fmt: skip

    def attempt(part: AttackRequest, _rows: Rows, restart: int) -> Images:
        return part.ascend(part.random_start(restart) if random or restart else part.clean, 1, size)

    return request.worst_of(attempt, restarts)
