"""`advntk evaluate --tier`: what is written and shown, its cost, what is done again, the same numbers on Ray actors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from advntk_dist.attacks.registry import JACOBIAN, TIERS, Tier
from advntk_dist.errors import RequestError, StoreDamagedError
from advntk_dist.pipeline.evaluate import evaluate_again
from advntk_dist.pipeline.run import run
from advntk_dist.pipeline.tier import evaluate_run_tier
from advntk_dist.progress import Display
from advntk_dist.storage import Records, guarded_group
from advntk_dist.storage.paths import Location
from advntk_dist.storage.records import read_group
from tests.pipeline.conftest import Command, events_of, results_of, small

QUIET = Display(quiet=True)


pytestmark = pytest.mark.usefixtures("quick_tiers")
PAIRS = [("early_stopped", "ntk"), ("adv_ntk", "ntk"), ("adv_ntk", "early_stopped")]


def batches(folder: Path) -> list[str]:
    return [e["name"] for e in events_of(folder) if e["event"] == "batch"]


def test_a_tier_of_a_finished_run(copy: Path, advntk: Command) -> None:
    before = results_of(copy)
    earlier = len(batches(copy))
    path, results = evaluate_run_tier(copy, "standard", images=50, display=QUIET)
    assert path.parent == copy / "evaluation"
    assert json.loads(path.read_text()).items() >= results.items()
    after = results_of(copy)
    assert [key for key in before if before[key] != after[key]] == ["worst_case", "checksum"]
    assert results["images"] == 50
    assert results["attack"] == {"radius": 0.2, "norm": "linf", "seed": 0}
    called = [a["called"] for a in results["attacks"]]
    assert called == ["linear", "fgsm", "pgd", "apgd-cross-entropy", "apgd-dlr", "apgd-targeted", "square"]
    assert [a["seed"] for a in results["attacks"]] == list(range(7))
    for row in results["methods"].values():
        assert row["n_test"] == 50
        assert row["robust_interval"][0] <= row["robust"] <= row["robust_interval"][1]
        left = [a["robust"] for a in row["attacks"]]
        assert [a["name"] for a in row["attacks"]] == called
        assert left == sorted(left, reverse=True)
        assert left[-1] == row["robust"] <= row["clean"]
        assert row["max_perturbation"] <= 0.2 + 1e-6
        predicted = row["predicted"]
        assert predicted["bound"]["image_steps"] > predicted["expected"]["image_steps"] > 0
        assert predicted["bound"]["seconds"] > predicted["expected"]["seconds"] > 0
    done = batches(copy)[earlier:]
    assert len(done) == 3 * 8 * 2

    # A second call asks nobody and changes nothing.
    again = evaluate_run_tier(copy, "standard", images=50, display=QUIET)[1]
    assert len(batches(copy)) == earlier + len(done)
    assert again == results

    code, out, _ = advntk("-q", "evaluate", str(copy), "--tier", "standard", "--images", "50")
    assert code == 0
    assert "tier standard on 50 test images, linf radius 0.2, seed 0" in out
    assert "apgd-targeted" in out
    row = results["methods"]["adv_ntk"]
    low, high = row["robust_interval"]
    assert f"{100 * row['robust']:.1f}%  {100 * low:.1f} to {100 * high:.1f}" in out
    assert [(p["method"], p["against"]) for p in results["paired"]] == PAIRS
    for p in results["paired"]:
        methods = results["methods"][p["method"]], results["methods"][p["against"]]
        assert p["robust"] == pytest.approx(methods[0]["robust"] - methods[1]["robust"])
        assert p["robust_interval"][0] < p["robust"] < p["robust_interval"][1]
        assert f"{p['method']} - {p['against']}, the same images: clean {100 * p['clean']:+.1f} (" in out


def _timeless(results: dict) -> dict:
    of_time = ("seconds", "predicted")
    methods = {m: {k: v for k, v in row.items() if k not in of_time} for m, row in results["methods"].items()}
    return results | {"methods": methods}


def test_methods_are_added_to_those_there(copy: Path) -> None:
    _, first = evaluate_run_tier(copy, "fast", images=20, methods=["ntk"], display=QUIET)
    _, both = evaluate_run_tier(copy, "fast", images=20, methods=["adv_ntk"], display=QUIET)
    assert list(first["methods"]) == ["ntk"]
    assert list(both["methods"]) == ["ntk", "adv_ntk"]
    assert both["methods"]["ntk"] == first["methods"]["ntk"]
    assert first["paired"] == []
    (pair,) = both["paired"]
    assert (pair["method"], pair["against"]) == ("adv_ntk", "ntk")
    assert pair["clean"] == pytest.approx(both["methods"]["adv_ntk"]["clean"] - both["methods"]["ntk"]["clean"])
    _, again = evaluate_run_tier(copy, "fast", images=20, methods=["ntk"], display=QUIET)
    assert again == both


def test_fast_on_all_images_is_the_result_of_the_run(copy: Path) -> None:
    _, results = evaluate_run_tier(copy, "fast", display=QUIET)
    stored = results_of(copy)
    assert results["paired"] == stored["paired"]
    assert [(p["method"], p["against"]) for p in stored["paired"]] == PAIRS
    before = stored["methods"]
    for method, row in results["methods"].items():
        assert (row["clean"], row["robust"]) == (before[method]["clean"], before[method]["robust"])


@pytest.mark.slow
def test_actors_give_the_same_outcomes(copy: Path, finished: Path, tmp_path: Path, ray_cluster: None) -> None:
    here = evaluate_run_tier(copy, "standard", methods=["adv_ntk"], display=QUIET)[1]
    other = shutil.copytree(finished, tmp_path / "other")
    there = evaluate_run_tier(other, "standard", methods=["adv_ntk"], workers=2, display=QUIET)[1]
    assert _timeless(there)["methods"] == _timeless(here)["methods"]
    assert there["methods"]["adv_ntk"]["predicted"]["workers"] == 2
    ready = [e for e in events_of(other) if e["event"] == "evaluator_ready"]
    assert ready
    assert len({e["pid"] for e in ready}) == len(ready)


@pytest.mark.slow
def test_a_whole_run_with_workers_is_the_same_run(finished: Path, tmp_path: Path, ray_cluster: None) -> None:
    """Dask on Ray multiplies on the two cores that the workers had."""
    config = small("evaluation.workers=2", "solver.operator=dask-on-ray", "solver.tolerance=1e-6")
    results = run(config, tmp_path / "spread", display=QUIET).results
    whole = results_of(finished)
    for method, row in whole["methods"].items():
        assert results["methods"][method]["clean"] == pytest.approx(row["clean"], abs=1.5 / 60)
        assert results["methods"][method]["robust"] == pytest.approx(row["robust"], abs=1.5 / 60)
    lost = [e for e in events_of(tmp_path / "spread") if e["event"] == "evaluator_lost"]
    assert lost == []


def test_outcomes_of_another_tier_are_not_taken_for_this_one(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate_run_tier(copy, "standard", images=20, methods=["ntk"], display=QUIET)
    monkeypatch.setitem(TIERS, "standard", Tier("other", 9, 2, 30))
    with pytest.raises(StoreDamagedError, match=r"something else \(attacks is .*move it away"):
        evaluate_run_tier(copy, "standard", images=20, methods=["ntk"], display=QUIET)


def test_an_attack_takes_its_own_loss(copy: Path) -> None:
    path, results = evaluate_again(copy, "apgd", ["steps=5"], display=QUIET)
    assert results["attack"]["loss"] == "dlr"
    assert path.name.startswith("results-apgd_linf")


def test_a_tier_that_is_not_there(finished: Path) -> None:
    with pytest.raises(RequestError, match="there are fast, standard, full, autoattack"):
        evaluate_run_tier(finished, "best", display=QUIET)


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
        passes = {
            "linear": 4 + JACOBIAN + 10,
            "fgsm": 1,
            "pgd": 10,
            "apgd-cross-entropy": 5,
            "apgd-dlr": 5,
            "apgd-targeted": 5,
            "square": 0,
        }
        expected = sum(p * alive[0 if a in ("linear", "fgsm", "pgd") else 1] for a, p in passes.items())
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
