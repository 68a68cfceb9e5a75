"""The worst of several tries, image by image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.base import DifferentiablePredictor, Images
from advntk_dist.attacks.losses import Loss, loss_and_slope
from advntk_dist.errors import RequestError

Rows = NDArray[np.int64]


def check_restarts(restarts: int) -> None:
    """Raise RequestError unless there is at least one start."""
    if restarts < 1:
        raise RequestError(f"attack.restarts: must be at least 1, got {restarts}")


Outcomes = Callable[[Images, Rows], tuple[NDArray[np.bool_], NDArray[np.float64]]]


def outcomes_of(
    predictor: DifferentiablePredictor,
    loss: Loss,
    wanted: NDArray[np.float64],
    classes: NDArray[np.int64],
    towards: NDArray[np.int64],
) -> Outcomes:
    """What :func:`worst_of` compares: whether images are misclassified, and their losses."""

    def outcomes(images: Images, rows: Rows) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        f = predictor.predict(images)
        return f.argmax(axis=1) != classes[rows], loss_and_slope(loss, f, wanted[rows], towards[rows])[0]

    return outcomes


def worst_of(
    ends: Callable[[Rows, int], Images],
    outcomes: Outcomes,
    images: int,
    tries: int,
) -> Images:
    """The worst end of each image: misclassified first, then of larger loss.

    Images that are misclassified are not tried again; with one try nothing is compared.

    Parameters
    ----------
    ends
        Called as ends(rows, i): where try i leads the images of these rows, (r, H, W, C).
    outcomes
        Called as outcomes(found, rows): whether each is misclassified, and its loss, (r,).
    images, tries
        How many there are.
    """
    found = ends(np.arange(images), 0)
    if tries == 1:
        return found
    wrong, losses = outcomes(found, np.arange(images))
    for i in range(1, tries):
        rows = np.flatnonzero(~wrong)
        if not len(rows):
            break
        others = ends(rows, i)
        other_wrong, other_losses = outcomes(others, rows)
        worse = other_wrong | (other_losses > losses[rows])
        found[rows[worse]], wrong[rows], losses[rows[worse]] = others[worse], other_wrong, other_losses[worse]
    return found
