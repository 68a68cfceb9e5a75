"""The worst of several tries, image by image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.base import Images
from advntk_dist.errors import RequestError

Rows = NDArray[np.int64]


def check_restarts(restarts: int) -> None:
    """Raise RequestError unless there is at least one start."""
    if restarts < 1:
        raise RequestError(f"attack.restarts: must be at least 1, got {restarts}")


def worst_of(
    ends: Callable[[Rows, int], Images],
    outcomes: Callable[[Images, Rows], tuple[NDArray[np.bool_], NDArray[np.float64]]],
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
