"""What a check says, and how many images may tell two attacks apart that count as equally strong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scipy.stats import binom

RATE = 0.01
"""Part of all images that an attack may break alone, although the other should not be weaker: both are local."""
LEVEL = 0.01
"""Level of the test that it is no more: the probability at most with which a check fails at exactly that rate."""


@dataclass(frozen=True)
class Check:
    """The verdict of one check."""

    name: str
    passed: bool
    value: str
    criterion: str
    details: dict[str, Any] = field(default_factory=dict)


def allowed(images: int) -> int:
    """The largest number of images that an attack may break alone.

    Outcomes are paired by image, and the number is tested against RATE by the exact one-sided binomial test at LEVEL.
    """
    return int(binom.isf(LEVEL, images, RATE))


def criterion(images: int) -> str:
    """The same in words, to follow what an attack breaks alone."""
    return (
        f"at most {allowed(images)} of {images} images (no more than {100 * RATE:g}% of all, by the exact one-sided "
        f"binomial test of outcomes paired by image, at level {100 * LEVEL:g}%)"
    )
