"""Methods against one another on the same images: the difference, and what chance alone could make of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.evaluation.accuracy import MethodResult
from advntk_dist.intervals import paired_interval


def paired_differences(methods: Mapping[str, MethodResult]) -> list[dict[str, Any]]:
    """Every method against every one before it, as results.json has it; differences are fractions of the images.

    An interval of a difference is shorter than those of the two accuracies suggest, as what makes an image hard makes
    it so for both methods.

    Raises
    ------
    ValueError
        If two methods were not judged on the same number of images.
    """
    rows = []
    for (against, old), (method, new) in combinations(methods.items(), 2):
        if old.clean.n != new.clean.n:
            raise ValueError(f"{method} was judged on {new.clean.n} images and {against} on {old.clean.n}")
        rows.append(
            {"method": method, "against": against, "n_test": new.clean.n}
            | _difference("clean", new.clean_right, old.clean_right)
            | _difference("robust", new.robust_right, old.robust_right)
        )
    return rows


def _difference(name: str, new: NDArray[np.bool_], old: NDArray[np.bool_]) -> dict[str, Any]:
    won, lost, n = int((new & ~old).sum()), int((old & ~new).sum()), len(new)
    return {name: (won - lost) / n, f"{name}_interval": list(paired_interval(won, lost, n))}
