"""How long a grid takes: predicted before it starts, and at the pace of what has been done."""

from __future__ import annotations

import time
from typing import Any

from advntk_dist.reproduce.grid import Cell, gram_seconds


def predicted(groups: list[list[Cell]]) -> float:
    """Seconds on two cores."""
    return sum(cell.seconds() for group in groups for cell in group) + sum(
        gram_seconds(group[0].subject) for group in groups if any(c.method != "at" for c in group)
    )


def left_line(plan: list[list[Cell]], left: list[list[Cell]]) -> str:
    """How much of a plan is left, in words."""
    count = f"{sum(map(len, left))} of {sum(map(len, plan))} cells to do"
    return f"{count}, about {duration(predicted(left))} on two cores"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Clock:
    """Time left: what was predicted of the rest, at the pace of what has been done.

    Parameters
    ----------
    total, left
        Cells in all, and those that are to be done.
    seconds
        Predicted for those.
    """

    def __init__(self, total: int, left: int, seconds: float) -> None:
        self.total, self.done, self.left = total, total - left, seconds
        self.start, self.passed = time.monotonic(), 0.0

    def gram(self, group: list[Cell]) -> None:
        """The Gram matrix of a group counts as done."""
        if any(c.method != "at" for c in group):
            self._pass(gram_seconds(group[0].subject))

    def line(self, cell: Cell, result: dict[str, Any]) -> str:
        """What is said of a cell that is done."""
        self.done += 1
        self._pass(cell.seconds())
        pace = (time.monotonic() - self.start) / max(self.passed, 1e-9)
        return (
            f"[{self.done}/{self.total}] {cell.name}: clean {100 * result['clean']:.1f} "
            f"robust {100 * result['robust']:.1f}, {result['seconds']:.0f} s; {duration(pace * self.left)} left"
        )

    def _pass(self, seconds: float) -> None:
        self.passed += seconds
        self.left = max(0.0, self.left - seconds)
