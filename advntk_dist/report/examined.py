"""What `advntk check` and `advntk evaluate --tier` left in a run directory, for its report."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from advntk_dist.errors import StoreDamagedError
from advntk_dist.report.paired import Pair, pairs_of
from advntk_dist.report.scores import MethodScore, as_percent, is_finite_number, method_scores, title_of
from advntk_dist.storage.location import Location


@dataclass(frozen=True)
class CheckRow:
    """One check: whether it passed, None where that was not decided, what was found, and what was asked for."""

    name: str
    passed: bool | None
    value: str
    criterion: str


@dataclass(frozen=True)
class Checked:
    """The gradient-masking checks of one method on its first ``images`` test images."""

    method: str
    images: str
    rows: tuple[CheckRow, ...]

    left: tuple[tuple[str, float], ...] = ()

    @property
    def verdict(self) -> str:
        """How many passed, and what the attacks left, in words."""
        failed = [row.name for row in self.rows if row.passed is False]
        passed = sum(row.passed is True for row in self.rows)
        words = f"{passed} of {len(self.rows)} checks of {self.method} on {self.images} test images passed."
        if failed:
            words += f" Failed: {'; '.join(failed)}."
        if self.left:
            words += f" Robust accuracy: {', '.join(f'{as_percent(value)} {under}' for under, value in self.left)}."
        return words


@dataclass(frozen=True)
class Tier:
    """Methods held to the attacks of a tier, one after another on what is left."""

    name: str
    images: str
    attacks: tuple[str, ...]
    scores: tuple[MethodScore, ...]
    pairs: tuple[Pair, ...]


def read_json(path: Location, again: str) -> dict[str, Any] | None:
    """What a JSON file of a run directory holds; None where there is none.

    Raises
    ------
    StoreDamagedError
        If it cannot be parsed, or holds no table; ``again`` is the command that writes it.
    """
    if not path.exists():
        return None
    remedy = f"remove it, and run `{again}` again"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreDamagedError(f"{path}: not valid JSON ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise StoreDamagedError(f"{path}: holds no table; {remedy}")
    return found


def read_check(folder: Location) -> Checked | None:
    """The checks in check.json, as many as there are; None where there is no such file.

    Raises
    ------
    StoreDamagedError
        If it cannot be read.
    """
    path = folder / "check.json"
    found = read_json(path, "advntk check")
    if found is None:
        return None
    rows = found.get("checks")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "name" in row for row in rows):
        raise StoreDamagedError(f"{path}: checks is not a list of named rows; remove it, and run `advntk check` again")
    return Checked(
        title_of(str(found.get("method", "the method"))),
        str(found.get("images", "the first")),
        tuple(
            CheckRow(
                str(row["name"]),
                row["passed"] if isinstance(row.get("passed"), bool) else None,
                str(row.get("value", "")),
                str(row.get("criterion", "")),
            )
            for row in rows
        ),
        tuple(
            (words, float(row["robust"]))
            for key, words in (
                ("own_attack", "under the run's own attack"),
                ("white_box", "under all white-box attacks"),
            )
            if isinstance(row := found.get(key), dict) and is_finite_number(row.get("robust"))
        ),
    )


def read_tiers(folder: Location) -> tuple[Tier, ...]:
    """Every tier below ``evaluation``, by name; other keys than those shown may be there.

    Raises
    ------
    StoreDamagedError
        If a file cannot be parsed.
    RequestError
        If a method lacks an accuracy.
    """
    place = folder / "evaluation"
    if not place.is_dir():
        return ()
    paths = sorted((path for path in place.iterdir() if path.name.endswith(".json")), key=lambda path: path.name)
    return tuple(_tier(path) for path in paths)


def _tier(path: Location) -> Tier:
    found = read_json(path, "advntk evaluate --tier") or {}
    where = f"evaluation/{path.name}"
    rows = found.get("methods")
    scores = [
        replace(score, detail=_left(rows[score.key]) if isinstance(rows, dict) else "")
        for score in method_scores(found, where)
    ]
    called = [row for row in found.get("attacks", []) if isinstance(row, dict)]
    return Tier(
        str(found.get("tier", path.name.removesuffix(".json"))),
        str(found.get("images", "all")),
        tuple(str(row.get("called", row.get("name", "unnamed"))) for row in called),
        tuple(scores),
        pairs_of(found, where),
    )


def _left(row: dict[str, Any]) -> str:
    """What each attack in turn left of a method."""
    attacks = [a for a in row.get("attacks", []) if isinstance(a, dict) and is_finite_number(a.get("robust"))]
    return ", ".join(f"{a.get('name', 'an attack')} leaves {as_percent(float(a['robust']))}" for a in attacks)
