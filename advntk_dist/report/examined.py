"""What `advntk check` and `advntk evaluate --tier` left in a run directory, for its report."""

from __future__ import annotations

from typing import Any, NamedTuple

from advntk_dist.report.attacks import attacks_words
from advntk_dist.report.format import as_percent
from advntk_dist.report.judgements import MethodScore, method_scores, pairs_of, title_of
from advntk_dist.results import schema
from advntk_dist.storage.paths import Location


class TierTable(NamedTuple):
    """A tier, the words of its attacks, and its methods with what each attack in turn left of them."""

    name: str
    images: int
    attacks: list[str]
    scores: tuple[MethodScore, ...]
    pairs: tuple[schema.PairRow, ...]


def read_check(folder: Location, owner: dict[str, Any]) -> dict[str, Any] | None:
    """What check.json says, of the run that ``owner`` names; None where there is no such file.

    Raises
    ------
    StoreError
        If it was changed since it was written, or is of another format.
    """
    path, remedy = folder / "check.json", f"`advntk check {folder}` writes it again; or remove it"
    found = schema.read(path, schema.CheckResults, remedy)
    if found is not None:
        schema.require_owner(path, found, owner, remedy)
    return found


def check_words(found: dict[str, Any]) -> str:
    """How many checks passed, and how many images are robust, in a sentence or three."""
    rows = found["checks"]
    failed = [row["name"] for row in rows if not row["passed"]]
    method = title_of(found["method"])
    words = f"{len(rows) - len(failed)} of {len(rows)} checks of {method} on {found['images']} test images passed."
    if failed:
        words += f" Failed: {'; '.join(failed)}."
    said = (("own_attack", "under the run's own attack"), ("white_box", "under all white-box attacks"))
    robust = [f"{as_percent(found[key]['robust'])} {under}" for key, under in said if found[key] is not None]
    return f"{words} Robust accuracy: {', '.join(robust)}."


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
    scores = [score.model_copy(update={"detail": _left(found["methods"][score.key])}) for score in method_scores(found)]
    attacks = [{key: value for key, value in row.items() if key != "called"} for row in found["attacks"]]
    return TierTable(found["tier"], found["images"], attacks_words(attacks), tuple(scores), pairs_of(found))


def _left(row: dict[str, Any]) -> str:
    """What each attack in turn left of a method."""
    return ", ".join(f"{a['name']} leaves {as_percent(a['robust'])}" for a in row["attacks"])
