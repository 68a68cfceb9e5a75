"""Checks and tiers that lie beside a run are in its report; those of other versions too, and damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.errors import OtherFormatError, StoreDamagedError
from advntk_dist.report import ReportInputs, write_report
from advntk_dist.report.write import check_words, read_check, read_tiers
from advntk_dist.results import schema, sealed
from tests.stored_results import DESCRIBED, check, tier

Make = Callable[..., ReportInputs]

CHECK = check(
    ("white box <not> weaker", True, "PGD 24.5%", "at most 1%"),
    ("accuracy falls to 0", False, "1: 3.0%", "0 at the pixel range"),
)
OWNER = schema.Described.model_validate(DESCRIBED)
TIER = tier(["apgd-ce", "square"], {"ntk": 0.15, "adv_ntk": 0.4})


def put(folder: Path, check: dict[str, Any] | None = None, **tiers: dict[str, Any]) -> Path:
    (folder / "evaluation").mkdir(parents=True)
    if check is not None:
        sealed.write(folder / "check.json", schema.CheckResults, check)
    for name, content in tiers.items():
        sealed.write(folder / "evaluation" / f"{name}.json", schema.TierResults, content)
    return folder


def test_the_page_shows_what_lies_beside_the_run(make: Make, tmp_path: Path) -> None:
    put(tmp_path, CHECK, b_standard=TIER, a_fast=TIER | {"tier": "fast", "images": 20})
    (tmp_path / "evaluation" / "notes.txt").write_text("not a tier")
    page = write_report(make(), tmp_path).read_text(encoding="utf-8")
    assert (
        "1 of 2 checks of Adv-NTK on 200 test images passed. Failed: accuracy falls to 0. Robust accuracy: 28.0% under"
        in page
    )
    assert '<td class="passed">pass</td><th scope="row">white box &lt;not&gt; weaker' in page
    assert '<td class="failed">FAIL</td><th scope="row">accuracy falls to 0' in page
    assert page.index("Tier fast, 20 test images") < page.index("Tier standard, 40 test images")
    assert page.count("apgd-ce; square. Robust: right after all of them.") == 2
    assert 'Adv-NTK<span class="small">apgd-ce leaves 45.0%, square leaves 40.0%</span>' in page
    assert '40.0%<span class="small">30.0 to 50.0</span>' in page
    assert "Not checked yet" not in page
    assert "Not held to a tier" not in page


def test_the_page_says_how_to_get_what_is_not_there(make: Make, tmp_path: Path) -> None:
    page = write_report(make(), tmp_path).read_text(encoding="utf-8")
    assert "Not held to a tier of attacks yet: `advntk evaluate RUN --tier standard`" in page
    assert "<code>advntk check RUN</code>" in page


def test_all_passed(tmp_path: Path) -> None:
    found = read_check(
        put(tmp_path, CHECK | {"checks": CHECK["checks"][:1], "method": "early_stopped", "own_attack": None}), OWNER
    )
    assert found is not None
    assert check_words(found) == (
        "1 of 1 checks of Early-stopped NTK on 200 test images passed. Robust accuracy: 28.0% under all white-box "
        "attacks."
    )


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a number": (lambda body: body["methods"]["ntk"].update(robust=0.97) or body, "was changed after it was written"),
    "not a table": (lambda _: [], "lacks its format number or its checksum"),
    "nothing": (lambda _: {}, "lacks its format number or its checksum"),
    "another key": (lambda body: resealed(body | {"more": 1}), "more: Extra inputs are not permitted"),
    "a missing key": (lambda body: resealed({k: v for k, v in body.items() if k != "methods"}), "methods: Field"),
    "no fraction": (lambda body: resealed(body | {"methods": {"ntk": {"clean": 2}}}), r"methods\.ntk\.clean: Input"),
    "an interval upside down": (
        lambda body: body["methods"]["ntk"].update(robust_interval=[0.3, 0.1]) or resealed(body),
        r"methods\.ntk\.robust_interval: Value error, the lower end is above the upper one",
    ),
    "no pair": (lambda body: resealed(body | {"paired": [3]}), r"paired\.0: Input should be a valid dictionary"),
}


def resealed(body: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in body.items() if key != "checksum"}
    return kept | {"checksum": sealed.checksum(kept)}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_was_changed_is_named_with_its_remedy(tmp_path: Path, damage: str) -> None:
    path = put(tmp_path, x=TIER) / "evaluation" / "x.json"
    change, says = DAMAGE[damage]
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(StoreDamagedError, match=rf"evaluation/x\.json: {says}.*; `advntk evaluate .* writes it again"):
        read_tiers(tmp_path, OWNER)


def test_another_format_is_named(tmp_path: Path) -> None:
    path = put(tmp_path, CHECK) / "check.json"
    path.write_text(json.dumps(resealed(json.loads(path.read_text()) | {"format": 3})))
    with pytest.raises(OtherFormatError, match=r"check\.json: has format 3, and this release reads format 4 alone"):
        read_check(tmp_path, OWNER)


def test_files_that_were_cut_short_are_named(tmp_path: Path) -> None:
    put(tmp_path, CHECK, x=TIER)
    for name, read in (("check.json", read_check), ("evaluation/x.json", read_tiers)):
        for content in ("", '{"checks": [', "\udcff{}"):
            (tmp_path / name).write_text(content, errors="surrogateescape")
            with pytest.raises(StoreDamagedError, match=rf"{name}: not valid JSON .*; `advntk .* writes it again"):
                read(tmp_path, OWNER)
