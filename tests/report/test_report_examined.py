"""Checks and tiers that lie beside a run are in its report; those of other versions too, and damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.errors import AdvNTKError, RequestError, StoreDamagedError
from advntk_dist.report import ReportInputs, write_report
from advntk_dist.report.examined import read_check, read_tiers

Make = Callable[..., ReportInputs]

CHECK: dict[str, Any] = {
    "dataset": "digits",
    "method": "adv_ntk",
    "images": 200,
    "passed": False,
    "checks": [
        {"name": "white box <not> weaker", "passed": True, "value": "PGD 24.5%", "criterion": "at most 1%", "x": 0},
        {"name": "accuracy falls to 0", "passed": False, "value": "1: 3.0%", "criterion": "0 at the pixel range"},
        {"name": "a check of a later version", "passed": None},
    ],
    "own_attack": {"robust": 0.28},
    "a key of a later version": {"x": 1},
}  # fmt: skip


def method(robust: float) -> dict[str, Any]:
    return {
        "clean": 0.9,
        "clean_interval": [0.77, 0.96],
        "robust": robust,
        "robust_interval": [robust - 0.1, robust + 0.1],
        "n_test": 40,
        "attacks": [{"name": "apgd-ce", "robust": robust + 0.05}, {"name": "square", "robust": robust}],
        "seconds": 1.5,
        "predicted": {"seconds": 3.0},
    }


TIER: dict[str, Any] = {
    "tier": "standard",
    "images": 40,
    "attacks": [{"called": "apgd-ce", "name": "apgd"}, {"name": "square"}],
    "methods": {"ntk": method(0.15), "adv_ntk": method(0.4)},
    "predicted": None,
}


def bare(make: Make) -> ReportInputs:
    return make(
        curve=None, training=None, varpi=None, y_train=None, examples=None, extremes=None, spectrum=None
    )  # fmt: skip


def put(folder: Path, check: object = None, **tiers: object) -> Path:
    (folder / "evaluation").mkdir(parents=True)
    if check is not None:
        (folder / "check.json").write_text(json.dumps(check))
    for name, content in tiers.items():
        (folder / "evaluation" / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_the_page_shows_what_lies_beside_the_run(make: Make, tmp_path: Path) -> None:
    put(tmp_path, CHECK, b_standard=TIER, a_fast=TIER | {"tier": "fast", "images": 20})
    (tmp_path / "evaluation" / "notes.txt").write_text("not a tier")
    page = write_report(bare(make), tmp_path).read_text(encoding="utf-8")
    assert (
        "1 of 3 checks of Adv-NTK on 200 test images passed. Failed: accuracy falls to 0. Robust accuracy: 28.0% under"
        in page
    )
    assert '<td class="passed">pass</td><th scope="row">white box &lt;not&gt; weaker' in page
    assert '<td class="failed">FAIL</td><th scope="row">accuracy falls to 0' in page
    assert '<td class="passed">–</td><th scope="row">a check of a later version' in page
    assert page.index("Tier fast, 20 test images") < page.index("Tier standard, 40 test images")
    assert page.count("apgd-ce, square. Robust: right after all of them.") == 2
    assert 'Adv-NTK<span class="small">apgd-ce leaves 45.0%, square leaves 40.0%</span>' in page
    assert '40.0%<span class="small">30.0 to 50.0</span>' in page
    assert "Not checked yet" not in page
    assert "Not held to a tier" not in page


def test_the_page_says_how_to_get_what_is_not_there(make: Make, tmp_path: Path) -> None:
    page = write_report(bare(make), tmp_path).read_text(encoding="utf-8")
    assert "<code>advntk evaluate RUN --tier standard</code>" in page
    assert "<code>advntk check RUN</code>" in page


def test_all_passed(tmp_path: Path) -> None:
    found = read_check(
        put(tmp_path, CHECK | {"checks": CHECK["checks"][:1], "method": "early_stopped", "own_attack": None})
    )
    assert found is not None
    assert found.verdict == "1 of 1 checks of Early-stopped NTK on 200 test images passed."


@pytest.mark.parametrize(
    ("check", "tier", "error", "says"),
    [
        ([], None, StoreDamagedError, r"check\.json: holds no table; remove it, and run `advntk check` again"),
        ({}, None, StoreDamagedError, r"check\.json: checks is not a list of named rows; "),
        ({"checks": [{"passed": True}]}, None, StoreDamagedError, r"check\.json: checks is not a list of named rows"),
        (None, [], StoreDamagedError, r"x\.json: holds no table; remove it, and run `advntk evaluate --tier` again"),
        (None, {}, RequestError, r"evaluation/x\.json: methods is missing or empty"),
        (None, {"methods": {"ntk": {"clean": 2}}}, RequestError, r"evaluation/x\.json: methods\.ntk\.clean: 2 is not"),
        (None, TIER | {"paired": [3]}, RequestError, r"evaluation/x\.json: paired\[0\]: 3 does not name two methods"),
    ],
)
def test_what_cannot_be_shown_is_named(
    tmp_path: Path, check: object, tier: object, error: type[AdvNTKError], says: str
) -> None:
    put(tmp_path, check, **({} if tier is None else {"x": tier}))
    with pytest.raises(error, match=says):
        (read_check if tier is None else read_tiers)(tmp_path)


def test_files_that_were_cut_short_are_named(tmp_path: Path) -> None:
    put(tmp_path)
    for name, read in (("check.json", read_check), ("evaluation/x.json", read_tiers)):
        (tmp_path / name).write_text('{"checks": [')
        with pytest.raises(StoreDamagedError, match=rf"{name}: not valid JSON .*; remove it, and run `advntk "):
            read(tmp_path)
