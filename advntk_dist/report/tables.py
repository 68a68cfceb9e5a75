"""Tables of the page: every value of ``results.json`` by its path, the seconds of each stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from advntk_dist.report.scores import is_finite_number
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


def stages(seconds: object) -> tuple[StageTime, ...]:
    """Rows of ``results["seconds"]`` in the file's order; ``total``, which is not a stage, is left out."""
    if not isinstance(seconds, dict):
        return ()
    rows = {
        str(name): float(value)
        for name, value in seconds.items()
        if is_finite_number(value) and value >= 0 and name != "total"
    }
    total = sum(rows.values())
    return tuple(
        StageTime(name, value, duration(value), value / total if total > 0 else 0.0) for name, value in rows.items()
    )


def total(rows: Sequence[StageTime]) -> str:
    """The time of all stages, for reading."""
    return duration(sum(row.seconds for row in rows))


def facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    """The few settings shown under the title, where the results have them."""
    sizes = [
        (label, results[key])
        for label, key in (("training", "n_train"), ("validation", "n_val"), ("test", "n_test"))
        if is_finite_number(results.get(key))
    ]
    rows = [
        (label, str(results[key])) for label, key in (("Data", "dataset"), ("Network", "network")) if results.get(key)
    ]
    if sizes:
        rows.append(("Images", ", ".join(f"{value:,} {label}" for label, value in sizes)))
    return rows
