"""`advntk evaluate --tier`: what is written and shown, what is done again, and the same numbers on Ray actors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from advntk_dist.attacks.registry import TIERS, Tier
from advntk_dist.config import load_config
from advntk_dist.errors import RequestError, StoreDamagedError
from advntk_dist.pipeline.evaluate import evaluate_again
from advntk_dist.pipeline.run import run
from advntk_dist.pipeline.tier import evaluate_run_tier
from advntk_dist.progress import Display
from tests.pipeline.conftest import SMALL, Command, events_of, results_of

QUIET = Display(quiet=True)


@pytest.fixture(autouse=True)
def quick_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same attacks with fewer steps and queries."""
    monkeypatch.setitem(TIERS, "standard", Tier("quick", 8, 2, 30))


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
    assert called == ["fgsm", "pgd", "apgd-cross-entropy", "apgd-dlr", "apgd-targeted", "square"]
    assert [a["seed"] for a in results["attacks"]] == list(range(6))
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
    assert len(done) == 3 * 7 * 2

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
    settings = (*SMALL, "evaluation.workers=2", "solver.operator=dask-on-ray", "solver.tolerance=1e-6")
    results = run(load_config("digits", settings), tmp_path / "spread", display=QUIET).results
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
