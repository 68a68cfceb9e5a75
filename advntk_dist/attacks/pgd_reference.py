"""The JAX attack of the paper's own code, for comparing with published numbers; it is not PGD."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from advntk_dist.attacks.base import HIGH, LOW, DifferentiablePredictor, Images, Loss, Norm
from advntk_dist.attacks.request import AttackRequest
from advntk_dist.errors import RequestError


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

    The result may lie up to twice the radius from the clean image. Arguments are as for
    :func:`advntk_dist.attacks.pgd.pgd`; the norm must be "linf", the loss the squared error, from one start.

    Raises
    ------
    RequestError
        If an argument is impossible.
    """
    size = radius / 5 if step_size is None else step_size
    request = AttackRequest.of(
        predictor, x, y, radius=radius, steps=steps, step_size=size, norm=norm, seed=seed, indices=indices, loss=loss,
        restarts=restarts,
    )  # fmt: skip
    if norm != "linf":
        raise RequestError(f"attack.norm: pgd-reference exists for linf only, got {norm!r}")
    if loss != "squared-error" or restarts != 1:
        raise RequestError(
            f"attack: pgd-reference exists for loss squared-error, 1 restart only, got {loss}, {restarts}; use pgd"
        )
    start = request.random_start(0)
    if not steps:
        return start
    direction = np.sign(request.predictor.value_and_slope(start, request.wanted)[2])
    current = start
    for _ in range(steps):
        moved = current + direction.dtype.type(size) * direction
        current = np.clip(np.clip(moved, start - radius, start + radius), LOW, HIGH).astype(start.dtype)
    return current
