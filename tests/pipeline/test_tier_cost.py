"""`advntk evaluate --tier`: what it says of its cost, before and after, and of an attack that is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from advntk_dist.attacks.registry import TIERS, Tier
from advntk_dist.pipeline.run import run
from advntk_dist.pipeline.tier import evaluate_run_tier
from advntk_dist.progress import Display
from advntk_dist.storage import Records, guarded_group
from advntk_dist.storage.paths import Location
from advntk_dist.storage.records import read_group
from tests.pipeline.conftest import Command, results_of, small

QUIET = Display(quiet=True)


@pytest.fixture(autouse=True)
def quick_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same attacks with fewer steps and queries."""
    monkeypatch.setitem(TIERS, "standard", Tier("quick", 4, 1, 10))


def shown_by(folder: Path, methods: list[str]) -> tuple[str, Location, dict[str, Any]]:
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115 - for the console's life
    path, results = evaluate_run_tier(folder, "standard", images=20, methods=methods, display=Display(console))
    return console.export_text(), path, results


def test_cost_is_shown_before_it_starts(copy: Path) -> None:
    shown, _, _ = shown_by(copy, ["adv_ntk"])
    assert shown.index("at most (no attack succeeds)") < shown.index("expected") < shown.index("adv_ntk: fgsm breaks")
    assert "image-steps" in shown


def test_a_method_that_is_added_has_a_cost_of_its_own(copy: Path) -> None:
    _, _, first = shown_by(copy, ["ntk"])
    shown, _, both = shown_by(copy, ["ntk", "adv_ntk", "early_stopped"])
    rows = both["methods"]
    assert rows["ntk"] == first["methods"]["ntk"], "its prediction and its time are those of its own call"
    bound = rows["adv_ntk"]["predicted"]["bound"]
    assert rows["early_stopped"]["predicted"]["bound"] == bound
    assert f"at most (no attack succeeds): {2 * bound['image_steps']:,} image-steps" in shown, "of the two that are new"
    assert "predicted" not in both
    stored = results_of(copy)["methods"]
    for method, row in rows.items():
        predicted = row["predicted"]
        assert predicted["batch"]["batch"] == 20
        alive = [round(20 * stored[method][key]) for key in ("clean", "robust")]
        passes = {"fgsm": 1, "pgd": 10, "apgd-cross-entropy": 5, "apgd-dlr": 5, "apgd-targeted": 5, "square": 0}
        expected = sum(p * alive[0 if a in ("fgsm", "pgd") else 1] for a, p in passes.items())
        assert predicted["expected"]["image_steps"] == expected
    shown, _, again = shown_by(copy, ["adv_ntk"])
    assert "at most" not in shown, "nothing is to be done"
    assert again == both


def test_seconds_are_those_of_all_starts(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("advntk_dist.attacks.square.square", killed)
        with pytest.raises(KeyboardInterrupt):
            shown_by(copy, ["adv_ntk"])
    (label,) = (p for p in (copy / "evaluation.zarr").iterdir() if p.name.startswith("standard"))
    group = guarded_group(label, read_group(label)[1])
    clock = Records(group, "adv_ntk_seconds", 1, (1,))
    before = clock.read(0)
    assert before is not None
    assert before[0, 0] > 0
    clock.write(0, np.array([[5000.0]]))
    _, _, results = shown_by(copy, ["adv_ntk"])
    assert 5000 < results["methods"]["adv_ntk"]["seconds"] < 6000


def test_the_attack_of_the_papers_code_is_marked(filled: Path, tmp_path: Path, advntk: Command) -> None:
    config = small("attack.name=pgd-reference", "attack.loss=squared-error")
    run(config, shutil.copytree(filled, tmp_path / "run"), display=QUIET)
    arguments = ["-q", "evaluate", str(tmp_path / "run"), "--images", "20", "--method", "ntk"]
    for tier, marked in (("fast", True), ("standard", False)):
        code, out, _ = advntk(*arguments, "--tier", tier)
        assert code == 0
        (path,) = (tmp_path / "run" / "evaluation").glob(f"{tier}_*.json")
        results = json.loads(path.read_text())
        assert ("note" in results) == marked
        assert ("up to twice the radius from the image" in out) == marked
        assert (results["methods"]["ntk"]["max_perturbation"] > 1.01 * results["attack"]["radius"]) == marked
