"""Tables of the page: every value of ``results.json`` by its path, the seconds of each stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advntk_dist.text import duration


def flatten(values: object, path: str = "") -> list[tuple[str, str]]:
    """Every leaf of a nested structure as (dotted path, text), in the order of the file.

    Numbers are written as JSON writes them, so none loses digits; a list of plain values stays on one row.
    """
    if isinstance(values, dict) and values:
        rows: list[tuple[str, str]] = []
        for key, value in values.items():
            rows += flatten(value, f"{path}.{key}" if path else str(key))
        return rows
    if isinstance(values, list | tuple) and any(isinstance(value, dict | list | tuple) for value in values):
        rows = []
        for index, value in enumerate(values):
            rows += flatten(value, f"{path}[{index}]")
        return rows
    return [(path, values if isinstance(values, str) else json.dumps(values, ensure_ascii=False, default=str))]


_STAGES = {
    "gram": "Gram matrix",
    "solve": "Coefficients at all times",
    "select": "Early stopping, on validation images",
    "train": "Adv-NTK",
    "evaluate": "Attacked test images",
    "report": "Report",
}


@dataclass(frozen=True)
class StageTime:
    """Seconds of one stage and its share (0 to 1) of the recorded total; ``name`` as in results.json."""

    name: str
    seconds: float
    duration: str
    share: float

    @property
    def title(self) -> str:
        """What the stage does, in words."""
        return _STAGES.get(self.name, self.name)


def stages(seconds: Mapping[str, float]) -> tuple[StageTime, ...]:
    """The stages of a run in the file's order."""
    total = sum(seconds.values())
    return tuple(
        StageTime(name, value, duration(value), value / total if total > 0 else 0.0) for name, value in seconds.items()
    )


def total(rows: Sequence[StageTime]) -> str:
    """The time of all stages, for reading."""
    return duration(sum(row.seconds for row in rows))


def facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The few settings shown under the title."""
    sizes = (("training", "n_train"), ("validation", "n_val"), ("test", "n_test"))
    return [
        ("Data", results["dataset"]),
        ("Network", results["network"]),
        ("Images", ", ".join(f"{results[key]:,} {label}" for label, key in sizes)),
    ]
