"""`advntk evaluate --tier autoattack`: with stand-ins for its packages, and with the packages where they are."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advntk_dist.attacks.registry import AUTOATTACK
from advntk_dist.errors import RequestError
from advntk_dist.pipeline.run import run
from advntk_dist.pipeline.tier import evaluate_run_tier
from advntk_dist.progress import Display
from advntk_dist.storage.paths import Location
from tests.autoattack_stand_in import stand_in
from tests.filled import fill_gram
from tests.pipeline.conftest import Command, Refused, small

QUIET = Display(quiet=True)
IMAGES = 60
HERE = all(importlib.util.find_spec(name) is not None for name in ("torch", "autoattack"))


def evaluated(folder: Path, methods: list[str]) -> tuple[Location, dict[str, Any]]:
    return evaluate_run_tier(folder, "autoattack", images=IMAGES, methods=methods, display=QUIET)


def noise(images: Any, labels: Any, part: str) -> Any:
    """Fells some images, more with each part."""
    step = np.random.default_rng(tuple(AUTOATTACK.parts).index(part)).choice([-0.2, 0.2], images.shape)
    return images + step, labels


def test_a_finished_run_under_autoattack(copy: Path, monkeypatch: pytest.MonkeyPatch, advntk: Command) -> None:
    def attack(images: Any, labels: Any, part: str) -> Any:
        if part == "apgd-t":
            print("Warning: there are 2 points with zero gradient!")
        return noise(images, labels, part)

    package = stand_in(monkeypatch, attack)
    code, out, _ = advntk(
        "-q", "evaluate", str(copy), "--tier", "autoattack", "--images", str(IMAGES), "--method", "adv_ntk"
    )
    assert code == 0
    (path,) = (copy / "evaluation").glob("autoattack_*.json")
    results = json.loads(path.read_text())
    row = results["methods"]["adv_ntk"]
    assert (
        list(dict.fromkeys(package.ran)) == [a["called"] for a in results["attacks"]] == list(tuple(AUTOATTACK.parts))
    )
    assert package.seen["version"] == "standard"
    assert [a["name"] for a in row["attacks"]] == list(tuple(AUTOATTACK.parts))
    left = [a["robust"] for a in row["attacks"]]
    assert left == sorted(left, reverse=True)
    assert left[-1] == row["robust"] < row["clean"]
    assert row["robust_interval"][0] < row["robust"] < row["robust_interval"][1]
    assert row["max_perturbation"] <= 0.2 + 1e-6
    assert row["flags"]["apgd-t"] == ["there are 2 points with zero gradient!"], "of two batches, once"
    assert ("square" in row["flags"]) == (left[-1] < left[-2] - 0.002)
    assert row["packages"]["torch"] == "2.0-stand-in"
    assert len(row["packages"]["autoattack_sha256"]) == 64
    assert row["predicted"]["bound"]["queries"] > 7000 * IMAGES
    assert "PyTorch" in row["predicted"]["without"]
    assert row["seconds"] > 0
    assert "adv_ntk, apgd-t says: there are 2 points with zero gradient!" in out
    assert f"tier autoattack on {IMAGES} test images" in out
    ran = len(package.ran)
    _, both = evaluated(copy, ["adv_ntk", "ntk"])
    assert both["methods"]["adv_ntk"] == row
    assert len(package.ran) > ran
    assert set(both["paired"][0]) >= {"robust", "robust_interval"}


def test_a_flag_of_the_whole_result(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_square(images: Any, labels: Any, part: str) -> Any:
        return noise(images, labels, part) if part == "square" else (images, labels)

    stand_in(monkeypatch, only_square)
    row = evaluated(copy, ["ntk"])[1]["methods"]["ntk"]
    broken = {a["name"]: a["broken"] for a in row["attacks"]}
    assert broken["square"] > 0 == broken["apgd-ce"] == broken["fab-t"]
    assert row["flags"] == {"square": ["Square Attack has decreased the robust accuracy"]}


def test_a_restart_goes_on_and_forgets_no_flag(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def attack(dies: bool) -> Callable[..., Any]:
        def run(images: Any, labels: Any, part: str) -> Any:
            calls.append(part)
            if part == "apgd-ce":
                print("Warning: it seems to be a randomized defense!")
            if dies and part == "fab-t":
                raise KeyboardInterrupt
            return noise(images, labels, part)

        return run

    stand_in(monkeypatch, attack(dies=True))
    with pytest.raises(KeyboardInterrupt):
        evaluated(copy, ["adv_ntk"])
    calls.clear()
    stand_in(monkeypatch, attack(dies=False))
    row = evaluated(copy, ["adv_ntk"])[1]["methods"]["adv_ntk"]
    assert set(calls) == {"fab-t", "square"}
    assert row["flags"]["apgd-ce"] == ["it seems to be a randomized defense!"]


def test_the_scale_of_outputs_does_not_go_by_batch(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[float] = []
    monkeypatch.setattr("advntk_dist.attacks.autoattack.torch_model", lambda _t, _p, _d, scale: scales.append(scale))
    stand_in(monkeypatch, noise)
    evaluated(copy, ["ntk"])
    assert len(scales) >= 5, "two batches of the first part"
    assert len(set(scales)) == 1


@pytest.mark.parametrize("missing", ["torch", "autoattack"])
def test_without_the_packages_it_says_in_one_line_how_to_get_them(
    finished: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused, missing: str
) -> None:
    stand_in(monkeypatch, noise)
    monkeypatch.setitem(sys.modules, missing, None)
    err = refused(2, "evaluate", str(finished), "--tier", "autoattack")
    assert "pip install torch git+https://github.com/fra31/auto-attack" in err


def test_what_it_cannot_do(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, noise)
    with pytest.raises(RequestError, match="in this process; leave out --workers and --address"):
        evaluate_run_tier(finished, "autoattack", workers=2, display=QUIET)
    monkeypatch.setattr("advntk_dist.attacks.autoattack.LEAST_OUTPUTS", 11)
    with pytest.raises(RequestError, match="has 10 outputs; use tier full"):
        evaluate_run_tier(finished, "autoattack", display=QUIET)


@pytest.mark.skipif(not HERE, reason="needs torch and autoattack; the command says how to get them")
def test_the_code_of_its_authors(tmp_path: Path) -> None:
    """On a run of its own with few test images: each part takes thousands of steps."""
    config = small("data.n_test=24", "attack.radius=0.1")
    run(config, fill_gram(config, tmp_path / "run"), display=QUIET)
    _, found = evaluate_run_tier(tmp_path / "run", "autoattack", methods=["adv_ntk"], display=QUIET)
    _, ours = evaluate_run_tier(tmp_path / "run", "standard", methods=["adv_ntk"], display=QUIET)
    row = found["methods"]["adv_ntk"]
    assert [a["name"] for a in row["attacks"]] == list(tuple(AUTOATTACK.parts))
    assert 0 < row["robust"] < row["clean"]
    assert row["flags"] == {}
    assert abs(row["robust"] - ours["methods"]["adv_ntk"]["robust"]) <= 1 / 24 + 1e-9
    assert row["max_perturbation"] <= 0.1 + 1e-6
