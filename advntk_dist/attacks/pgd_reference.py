"""The JAX attack of the paper's own code, for comparing with published numbers; it is not PGD."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from advntk_dist.attacks.base import HIGH, LOW, DifferentiablePredictor, Images, Norm
from advntk_dist.attacks.geometry import random_start
from advntk_dist.attacks.loss_gradients import check_request, loss_gradient
from advntk_dist.attacks.losses import Loss
from advntk_dist.errors import RequestError

NOTE = (
    "pgd-reference is the attack of the paper's code and not PGD: one gradient, steps around the random start, up to "
    "twice the radius from the image; for comparing with published numbers, and with no tier of another attack"
)
"""What goes with its figures wherever they could be taken for those of an attack within the radius."""


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
    """One gradient at the random start, used in every step, in a ball around the random start.

    The result may lie up to twice the radius from the clean image. Arguments as for
    :func:`advntk_dist.attacks.pgd`; the norm must be "linf", the loss the squared error, from one start.

    Raises
    ------
    RequestError
        If an argument is impossible.
    """
    size = radius / 5 if step_size is None else step_size
    clean = check_request(x, radius, steps, size, norm)
    if norm != "linf":
        raise RequestError(f"attack.norm: pgd-reference exists for linf only, got {norm!r}")
    if loss != "squared-error" or restarts != 1:
        raise RequestError(
            f"attack: pgd-reference exists for loss squared-error, 1 restart only, got {loss}, {restarts}; use pgd"
        )
    start = random_start(clean, radius, norm, seed, indices)
    direction = np.sign(loss_gradient(predictor, start, y)) if steps else np.zeros_like(start)
    current = start
    for _ in range(steps):
        moved = current + direction.dtype.type(size) * direction
        current = np.clip(np.clip(moved, start - radius, start + radius), LOW, HIGH).astype(clean.dtype)
    return current
