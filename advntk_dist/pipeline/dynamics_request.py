"""What `advntk dynamics` can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from advntk_dist.errors import RequestError

Rates = Literal["adaptive", "uniform"]


@dataclass(frozen=True)
class DynamicsRequest:
    """What `advntk dynamics` is asked for.

    Attributes
    ----------
    strength
        Theta_x eta S of the median sample: its effective time runs e^strength times as fast as the clock.
    rates
        "adaptive": eta_i in proportion to the distance of image i to the nearest training image of another class, so
        that images with room around them are attacked harder; "uniform": one eta for all samples.
    schedule
        Profile of eta over time, see :func:`advntk_dist.theory.schedules.named`.
    duration
        Time over which a schedule unfolds; by default the middle of the grid of times, on the log scale.
    pieces
        Pieces to an interval of the grid, where a schedule needs the exact piecewise answer.
    images
        Test and validation images that are attacked; by default as many as the run itself does.
    """

    strength: float = 2.0
    rates: Rates = "adaptive"
    schedule: str = "constant"
    duration: float | None = None
    pieces: int = 4
    images: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises
        ------
        RequestError
            If one is out of range.
        """
        if not (np.isfinite(self.strength) and 0 <= self.strength <= 100):
            raise RequestError(f"--strength must be from 0 to 100, got {self.strength}")
        if self.rates not in ("adaptive", "uniform"):
            raise RequestError(f"--rates: no {self.rates!r}; there are adaptive and uniform")
        if self.duration is not None and not (np.isfinite(self.duration) and self.duration > 0):
            raise RequestError(f"--duration must be > 0, got {self.duration}")
        if self.pieces < 1:
            raise RequestError(f"--pieces must be at least 1, got {self.pieces}")
        if self.images is not None and self.images < 1:
            raise RequestError(f"--images must be at least 1, got {self.images}")
