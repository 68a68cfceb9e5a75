"""What `advntk check` and `advntk evaluate --tier` left in a run directory, for its report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from advntk_dist.report.attacks import attacks_words
from advntk_dist.report.scores import MethodScore, PairedDifference, as_percent, method_scores, pairs_of, title_of
from advntk_dist.results import schema
from advntk_dist.storage.paths import Location


@dataclass(frozen=True)
class CheckedRow:
    """One check: whether it passed, what was found, and what was asked for."""

    name: str
    passed: bool
    value: str
    criterion: str


@dataclass(frozen=True)
class Checked:
    """The gradient-masking checks of one method on its first ``images`` test images."""

    method: str
    images: str
    rows: tuple[CheckedRow, ...]

    left: tuple[tuple[str, float], ...] = ()

    @property
    def verdict(self) -> str:
        """How many passed, and what the attacks left, in words."""
        failed = [row.name for row in self.rows if not row.passed]
        passed = sum(row.passed for row in self.rows)
        words = f"{passed} of {len(self.rows)} checks of {self.method} on {self.images} test images passed."
        if failed:
            words += f" Failed: {'; '.join(failed)}."
        if self.left:
            words += f" Robust accuracy: {', '.join(f'{as_percent(value)} {under}' for under, value in self.left)}."
        return words


@dataclass(frozen=True)
class TierTable:
    """Methods held to the attacks of a tier, one after another on what is left."""

    name: str
    images: str
    attacks: tuple[str, ...]
    scores: tuple[MethodScore, ...]
    pairs: tuple[PairedDifference, ...]


def read_check(folder: Location, owner: dict[str, Any]) -> Checked | None:
    """The checks in check.json of the run that ``owner`` names; None where there is no such file.

    Raises
    ------
    StoreError
        If it was changed since it was written, or is of another format.
    """
    path, remedy = folder / "check.json", f"`advntk check {folder}` writes it again; or remove it"
    found = schema.read(path, schema.CheckResults, remedy)
    if found is None:
        return None
    schema.require_owner(path, found, owner, remedy)
    said = (("own_attack", "under the run's own attack"), ("white_box", "under all white-box attacks"))
    return Checked(
        title_of(found["method"]),
        str(found["images"]),
        tuple(CheckedRow(row["name"], row["passed"], row["value"], row["criterion"]) for row in found["checks"]),
        tuple((words, float(found[key]["robust"])) for key, words in said if found[key] is not None),
    )


def read_tiers(folder: Location, owner: dict[str, Any]) -> tuple[TierTable, ...]:
    """Every tier below ``evaluation`` of the run that ``owner`` names, by name.

    Raises
    ------
    StoreError
        If a file was changed since it was written, or is of another format.
    """
    place = folder / "evaluation"
    if not place.is_dir():
        return ()
    paths = sorted((path for path in place.iterdir() if path.name.endswith(".json")), key=lambda path: path.name)
    return tuple(_tier(path, folder, owner) for path in paths)


def _tier(path: Location, folder: Location, owner: dict[str, Any]) -> TierTable:
    tier = path.name.partition("_")[0]
    remedy = f"`advntk evaluate {folder} --tier {tier}` with the same number of images writes it again; or remove it"
    found = schema.read(path, schema.TierResults, remedy)
    assert found is not None
    schema.require_owner(path, found, owner, remedy)
    where = f"evaluation/{path.name}"
    scores = [replace(score, detail=_left(found["methods"][score.key])) for score in method_scores(found, where)]
    attacks = [{key: value for key, value in row.items() if key != "called"} for row in found["attacks"]]
    called = tuple(attacks_words(attacks))
    return TierTable(found["tier"], str(found["images"]), called, tuple(scores), pairs_of(found, where))


def _left(row: dict[str, Any]) -> str:
    """What each attack in turn left of a method."""
    return ", ".join(f"{a['name']} leaves {as_percent(a['robust'])}" for a in row["attacks"])
