"""What a check says, and how much two attacks may differ that count as equally strong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TOLERANCE = 0.01
"""Accuracy, as a fraction, that counts as the same; see :func:`tolerance`."""


@dataclass(frozen=True)
class Check:
    """The verdict of one check."""

    name: str
    passed: bool
    value: str
    criterion: str
    details: dict[str, Any] = field(default_factory=dict)


def tolerance(images: int) -> float:
    """Accuracy that counts as the same on so many images: a point, and no less than one image; rounding included."""
    return max(TOLERANCE, 1 / images) + 1e-9
