"""`advntk check` on a small finished run, and on one whose attacks leave their bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advntk_dist import pgd
from tests.pipeline.conftest import Command, results_of


def test_a_sound_run_passes(copy: Path, advntk: Command) -> None:
    before = results_of(copy)
    code, out, _ = advntk("-q", "check", copy, "--images", 40, "--json")
    report = json.loads(out)
    assert code == 0, report["checks"]
    assert report.items() <= json.loads((copy / "check.json").read_text()).items()
    assert report["passed"]
    assert len(report["checks"]) == 8
    for row in report["checks"]:
        assert row["passed"]
        assert row["value"]
        assert row["criterion"]
    assert (report["method"], report["images"]) == ("adv_ntk", 40)
    assert report["white_box"]["robust"] <= report["own_attack"]["robust"] <= report["clean"]
    assert report["white_box"]["n_test"] == 40
    after = results_of(copy)
    assert [key for key in before if before[key] != after[key]] == ["worst_case", "checksum"]


def test_a_run_whose_attacks_leave_the_radius_fails(
    copy: Path, advntk: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_far(predictor: Any, x: Any, y: Any, *, radius: float, **told: Any) -> Any:
        return np.asarray(pgd(predictor, x, y, radius=1.5 * radius, **told))

    monkeypatch.setattr("advntk_dist.attacks.pgd.pgd", too_far)
    code, out, _ = advntk("-q", "check", copy, "--images", 20, "--method", "early_stopped")
    assert code == 1
    assert "FAIL  every perturbation within radius and pixel range" in out
    assert "wanted:" in out
    assert "early_stopped, 20 test images" in out
    assert not json.loads((copy / "check.json").read_text())["passed"]
