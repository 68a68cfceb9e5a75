"""Projected gradient descent as the field defines it (Madry et al. 2018)."""

from __future__ import annotations

from numpy.typing import ArrayLike

from advntk_dist.attacks.ascent import AscendingPredictor
from advntk_dist.attacks.base import (
    DifferentiablePredictor,
    Images,
    Norm,
    ascent_direction,
    check_request,
    loss_gradient,
    project,
    random_start,
    targets_of,
)


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
) -> Images:
    """Maximise the squared error within a ball around the clean images.

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
        "linf" or "l2".
    seed, indices
        The random start of image i is drawn from a stream keyed by (seed, indices[i]); by default i itself.

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
    current = random_start(clean, radius, norm, seed, indices)
    if steps and isinstance(predictor, AscendingPredictor) and predictor.dtype == clean.dtype:
        wanted = targets_of(y, len(clean), predictor.outputs)
        return predictor.ascend(current, clean, wanted, radius=radius, steps=steps, step_size=size, norm=norm)
    for _ in range(steps):
        direction = ascent_direction(loss_gradient(predictor, current, y), norm).astype(clean.dtype)
        current = project(current + size * direction, clean, radius, norm)
    return current
