"""AutoAttack's standard version as a sequence of its four parts, each on the images that those before it leave.

So it runs by itself, too; here its parts meet batches that are committed one by one, with the settings and the seed
that the standard version gives them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist.attacks.autoattack import autoattack, output_scale
from advntk_dist.attacks.autoattack_package import STANDARD
from advntk_dist.attacks.base import DifferentiablePredictor, Images, Norm
from advntk_dist.evaluation.cost import Passes, Priced
from advntk_dist.evaluation.sequence import NamedAttack

JUDGED = 2
"""Value passes that an image takes besides: its result is judged in the bridge, and for the table."""
_TARGETED = {"fab-t": Passes(1837, 900), "square": Passes(5012, 0)}
PASSES: dict[Norm, dict[str, Passes]] = {
    "linf": {"apgd-ce": Passes(111, 101), "apgd-t": Passes(928, 909), **_TARGETED},
    "l2": {"apgd-ce": Passes(111, 101), "apgd-t": Passes(928, 909), **_TARGETED},
    "l1": {"apgd-ce": Passes(525, 515), "apgd-t": Passes(530, 515), **_TARGETED},
}
"""What each part asks for an image that withstands it, its checks of the predictor included; counted."""


def part_price(part: str, norm: Norm) -> Priced:
    """The cost of a part: the first meets every image that is classified correctly."""
    asked = PASSES[norm][part]
    return Priced(Passes(asked.queries + JUDGED, asked.steps), part == STANDARD[0])


class StandardParts:
    """The parts against one predictor.

    Parameters
    ----------
    x
        All images that it is judged on (n, H, W, C), floats: of all of them comes the scale of its outputs.
    radius, norm, seed
        Of every part.
    on_flag
        Called with the part and with what it says against its result.
    """

    def __init__(self, x: Images, *, radius: float, norm: Norm, seed: int, on_flag: Callable[[str, str], None]) -> None:
        self._x, self._radius, self._norm, self._seed, self._on_flag = x, radius, norm, seed, on_flag
        self._scale: float | None = None

    def named(self) -> tuple[NamedAttack, ...]:
        """The parts as :func:`~advntk_dist.evaluation.sequence.evaluate_sequence` takes them."""
        return tuple(NamedAttack(part, partial(self._attack, part), self._seed) for part in STANDARD)

    def _attack(
        self,
        part: str,
        predictor: DifferentiablePredictor,
        x: ArrayLike,
        y: NDArray[np.int64],
        *,
        seed: int,
        indices: Any,  # noqa: ARG002 - of the interface; its random numbers go by batch
    ) -> Images:
        if self._scale is None:
            self._scale = output_scale(predictor, self._x)
        return autoattack(
            predictor,
            x,
            y,
            radius=self._radius,
            norm=self._norm,
            seed=seed,
            batch=len(y),
            attacks=[part],
            scale=self._scale,
            on_flag=partial(self._on_flag, part),
        )
