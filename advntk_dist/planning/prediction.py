"""What a run is expected to take: seconds by stage and part, and what bounds each stage."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from advntk_dist.planning.crew import Stage

STAGES = ("gram", "solve", "select", "train", "evaluate")

PASSES, ALGEBRA = "passes over the matrix", "vectors in the driver"
"""Parts of a solve: products with the matrix, and everything that the driver does with tall blocks of vectors."""


@dataclass(frozen=True)
class Prediction:
    """What a run is expected to take.

    Attributes
    ----------
    seconds
        By stage, as results.json has them.
    parts
        The same, by what they are spent on.
    passes
        Over the Gram matrix: of the longest uniform solve, at t = infinity, and of all training steps together.
    a_pass
        Seconds of one pass with as many vectors as classes, by what they are spent on.
    tier_left_out
        Seconds of the tier that would end the run, where it is too dear for that; otherwise None.
    """

    seconds: dict[str, float]
    parts: dict[str, dict[str, float]]
    passes: dict[str, float]
    a_pass: dict[str, float] = field(default_factory=dict)
    tier_left_out: float | None = None

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    def drivers(self, most: int = 3) -> list[tuple[str, str, float]]:
        """What most of the time goes to: (stage, part, share of the total), the largest first."""
        every = [(s, p, v / max(self.total, 1e-9)) for s, parts in self.parts.items() for p, v in parts.items()]
        return sorted(every, key=lambda row: -row[2])[:most]

    @property
    def bottlenecks(self) -> dict[str, str]:
        """The largest part of each stage, and of a pass; where passes are the largest part, that of a pass is named."""
        a_pass = Stage(self.a_pass).bottleneck
        largest = {stage: Stage(parts).bottleneck for stage, parts in self.parts.items()}
        named = {stage: f"{part}: {a_pass}" if part == PASSES else part for stage, part in largest.items()}
        return named | {"pass": a_pass}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"total": self.total, "bottlenecks": self.bottlenecks}
