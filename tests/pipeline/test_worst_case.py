"""What a run says is the worst case over every attack that it has met: image by image, on images that met them all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from advntk_dist.errors import StoreDamagedError
from advntk_dist.evaluation import MethodResult
from advntk_dist.pipeline import tier as tier_module
from advntk_dist.pipeline.compare import compare_runs
from advntk_dist.pipeline.directory import RunDirectory
from advntk_dist.pipeline.evaluate import check_run, evaluate_again
from advntk_dist.pipeline.finished import RunOutcomes, read_outcomes
from advntk_dist.pipeline.run import rebuild_report, run
from advntk_dist.pipeline.status import run_status
from advntk_dist.pipeline.tier import evaluate_run_tier
from advntk_dist.pipeline.worst_case import AttackSet, WorstCase
from advntk_dist.progress import Display
from advntk_dist.storage import Records
from advntk_dist.storage.records import read_group
from tests.pipeline.conftest import Command, Refused, command_of, results_of, small

pytestmark = pytest.mark.usefixtures("quick_tiers")
QUIET = Display(quiet=True)
WEAK = ("attack.loss=squared-error", "attack.steps=1", "attack.step_size=0.002")


def outcome(clean: list[int], robust: list[int]) -> MethodResult:
    return MethodResult.of(np.array(clean), np.array(robust), 0.1)


def attack_set(label: str, attacks: str, **methods: list[int]) -> AttackSet:
    """Outcomes of images that are all right when clean."""
    described = tuple({"name": name, "norm": "linf", "radius": 0.1} for name in attacks)
    return AttackSet(label, described, {name: outcome([1] * len(r), r) for name, r in methods.items()})


def test_an_image_is_robust_where_no_attack_breaks_it() -> None:
    own = attack_set("own", "a", ntk=[1, 1, 0, 1, 1], adv=[1, 1, 1, 1, 0])
    other = attack_set("tier", "bc", ntk=[0, 1, 1], adv=[1, 0, 1])
    found = WorstCase.of(own, [other])
    assert found.images == 3
    assert [result.robust_right.tolist() for result in found.methods.values()] == [
        [False, True, False],
        [True, False, True],
    ]
    assert [attack["name"] for attack in found.attacks] == ["a", "b", "c"]
    assert found.as_dict()["paired"][0]["robust"] == pytest.approx(1 / 3)
    assert found.as_dict()["methods"]["adv"]["n_test"] == 3


def test_what_another_set_includes_does_not_count_twice() -> None:
    own = attack_set("own", "a", ntk=[1, 1, 1, 1])
    few = attack_set("few", "bc", ntk=[0])
    more = attack_set("more", "bcd", ntk=[1, 1, 0])
    again = attack_set("again", "a", ntk=[0, 1])
    assert [s.label for s in WorstCase.of(own, [few, more, again]).sets] == ["own", "more"]
    longer = attack_set("longer", "bc", ntk=[1, 1, 1, 1])
    assert [s.label for s in WorstCase.of(own, [few, more, longer]).sets] == ["own", "longer", "more"]


def test_attacks_that_not_all_methods_have_met_rank_nothing_and_are_said() -> None:
    own = attack_set("own", "a", ntk=[1, 1, 0], adv=[1, 1, 1])
    found = WorstCase.of(own, [attack_set("check", "z", adv=[0, 0, 1])])
    assert found.images == 3
    assert found.as_dict()["methods"]["adv"]["robust"] == 1.0
    (row,) = found.as_dict()["alone"]
    assert (row["method"], row["set"], row["n_test"]) == ("adv", "check", 3)
    assert row["robust"] == pytest.approx(1 / 3)


def outcomes(folder: Path) -> RunOutcomes:
    place = RunDirectory.at(folder)
    found = read_outcomes(place, place.stored_config())
    assert found is not None
    return found


def table(folder: Path, label: str, name: str) -> NDArray[np.float64]:
    group, _ = read_group(folder / "evaluation.zarr" / label)
    return np.asarray(group[name])  # type: ignore[arg-type]


def test_results_are_under_the_worst_of_what_was_met(copy: Path, advntk: Command) -> None:
    before = results_of(copy)
    assert before["worst_case"]["images"] == 60
    assert before["worst_case"]["methods"]["adv_ntk"].items() <= before["methods"]["adv_ntk"].items()
    assert len(before["worst_case"]["attacks"]) == 1
    _, held = evaluate_run_tier(copy, "standard", images=30, display=QUIET)
    _, again = evaluate_again(copy, "apgd", ["steps=5", "restarts=2"], display=QUIET)
    evaluate_again(copy, "pgd", ["radius=0.01"], display=QUIET)
    evaluate_again(copy, "pgd", ["norm=l2"], display=QUIET)
    evaluate_again(copy, "pgd-reference", ["loss=squared-error"], display=QUIET)
    worst = results_of(copy)["worst_case"]
    assert worst["images"] == 30
    assert [a["name"] for a in worst["attacks"]] == [
        "pgd",
        "apgd",
        "linear",
        "fgsm",
        "pgd",
        "apgd",
        "apgd",
        "apgd-targeted",
        "square",
    ]
    names = {"ntk": "test_t2", "adv_ntk": "test_adv_ntk"}
    (label,) = (p.name for p in (copy / "evaluation.zarr").glob("standard_*"))
    apgd = next(p.name for p in (copy / "evaluation.zarr").glob("apgd_*"))
    (own,) = (p.name for p in (copy / "evaluation.zarr").glob("pgd_linf_r0.2*"))
    for method, name in names.items():
        robust = (table(copy, own, name)[:30, 1] > 0) & (table(copy, apgd, name)[:30, 1] > 0)
        for called in (a["called"] for a in held["attacks"]):
            robust &= table(copy, label, f"{method}_{called}")[:, 0] > 0
        assert worst["methods"][method]["robust"] == robust.mean()
        assert worst["methods"][method]["robust"] <= min(held["methods"][method]["robust"], 1.0)
    assert again["methods"]["ntk"]["robust"] >= worst["methods"]["ntk"]["robust"] - 0.5
    code, out, _ = advntk("-q", "run", str(copy / "config.toml"), "--out", str(copy))
    assert code == 0
    assert "under the worst of 9 attacks on each of 30 test images (linf radius 0.2)" in out
    assert "apgd-targeted on dlr targeted (4 steps, 1 target, 1 start)" in out
    assert f"adv_ntk{100 * worst['methods']['adv_ntk']['clean']:>14.1f}%" in out
    rebuild_report(copy, display=QUIET)
    page = (copy / "report.html").read_text()
    assert "under the worst of 9 attacks on each of 30 test images (l∞ radius 0.2)" in page
    assert "Under the run&#39;s own attack alone" in page or "Under the run's own attack alone" in page


def test_a_check_counts_for_the_method_that_it_examined(copy: Path, advntk: Command) -> None:
    _, report = check_run(copy, images=40, display=QUIET)
    worst = results_of(copy)["worst_case"]
    assert worst["images"] == 60
    (row,) = worst["alone"]
    assert (row["method"], row["n_test"]) == ("adv_ntk", 40)
    assert row["robust"] <= report["white_box"]["robust"]
    assert len(row["attacks"]) > 5
    out = advntk("-q", *command_of(copy))[1]
    assert "Adv-NTK has met further attacks, which not all methods have" in out


def test_damaged_outcomes_of_a_tier_do_not_count_any_more(copy: Path) -> None:
    evaluate_run_tier(copy, "fast", images=10, display=QUIET)
    assert len(results_of(copy)["worst_case"]["sets"]) == 1, "the run's own attack met these images before"
    evaluate_run_tier(copy, "standard", images=10, display=QUIET)
    worst = results_of(copy)["worst_case"]
    (label,) = worst["sets"][1:]
    (copy / "evaluation.zarr" / label / "adv_ntk_square" / "c" / "0" / "0").unlink()
    found = run(small(), copy, display=QUIET)
    assert not found.worked
    assert found.results["worst_case"]["images"] == 60
    assert [row["method"] for row in found.results["worst_case"]["alone"]] == ["ntk", "early_stopped"]
    assert results_of(copy)["worst_case"] == worst, "who only reads does not write"
    rebuild_report(copy, display=QUIET)
    assert results_of(copy)["worst_case"] == json.loads(json.dumps(found.results["worst_case"]))


def test_coefficients_of_another_method_have_not_met_the_attacks(copy: Path) -> None:
    evaluate_run_tier(copy, "standard", images=10, methods=["ntk"], display=QUIET)
    (label,) = (p for p in (copy / "evaluation.zarr").glob("standard_*"))
    for source in (
        "clean",
        *(a["called"] for a in json.loads((copy / "evaluation" / f"{label.name}.json").read_text())["attacks"]),
    ):
        for place in (label, label / "commits"):
            shutil.copytree(place / f"ntk_{source}", place / f"adv_ntk_{source}")
    (found,) = outcomes(copy).others
    assert list(found.methods) == ["ntk"]


def test_a_run_ends_with_its_tier(filled: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(filled, tmp_path / "run")
    plain = run(small(*WEAK), folder, display=QUIET)
    tier = plain.results["tier"]
    assert (tier["asked"], tier["name"], tier["images"], tier["worth"]) == ("none", "standard", 60, False)
    assert tier["predicted_seconds"] > 0
    assert plain.results["worst_case"]["images"] == 60
    ending = small(*WEAK, "evaluation.tier=standard", "evaluation.tier_images=25")
    ended = run(ending, folder, display=QUIET)
    assert ended.worked
    assert ended.results["tier"]["worth"]
    assert ended.results["tier"]["predicted_seconds"] > 0
    worst, own = ended.results["worst_case"], ended.results["methods"]
    assert worst["images"] == 25
    assert len(worst["attacks"]) == 8
    assert worst["methods"]["adv_ntk"]["robust"] < own["adv_ntk"]["robust"], "one weak step says nothing"
    assert ended.results["methods"] == plain.results["methods"]
    assert len(list((folder / "evaluation").glob("standard_*_images25.json"))) == 1
    assert not run(ending, folder, display=QUIET).worked
    assert "tier_images = 25" in (folder / "config.toml").read_text()
    damaged = folder / "results.json"
    damaged.write_text(damaged.read_text().replace('"smallest_ritz"', '"smallest"'))
    rebuild_report(folder, display=QUIET)
    assert results_of(folder)["tier"] == ended.results["tier"], "as it was decided"
    assert run_status(folder).images == run_status(folder).images_total, "a tier's images are not the run's own"
    fewer = small(*WEAK, "evaluation.tier=standard", "evaluation.tier_images=10")
    assert not run(fewer, folder, display=QUIET).worked, "more images have met it"
    assert not run(small(*WEAK), folder, display=QUIET).worked
    # A copy of the whole run whose page is compared with one that has met the run's attack alone.
    other = shutil.copytree(filled, tmp_path / "other")
    run(small(*WEAK, "train.lr=0.01"), other, display=QUIET)
    page = compare_runs([folder, other], tmp_path / "page.html").read_text()
    assert "60" in page
    assert "pgd on squared error (1 step of 0.002, 1 start, l∞ radius 0.2)" in page
    assert "the runs met different attacks" not in page
    assert "–</td>" not in page.partition("What differs in the data and settings")[2].partition("</section>")[0]


@pytest.mark.parametrize("worth", [0.0, 1e9])
def test_a_tier_that_costs_too_much_is_left_out_and_said(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worth: float,
    advntk: Command,
) -> None:  # fmt: skip
    monkeypatch.setattr(tier_module, "WORTH", worth)
    folder = shutil.copytree(filled, tmp_path / "run")
    config = small("evaluation.tier=auto", "evaluation.tier_images=5")
    found = run(config, folder, display=QUIET)
    tier = found.results["tier"]
    assert (tier["asked"], tier["name"], tier["images"], tier["worth"]) == ("auto", "standard", 5, worth > 0)
    assert tier["predicted_seconds"] > 0
    assert tier["run_seconds"] > 0
    assert len(found.results["worst_case"]["sets"]) == 1 + (worth > 0)
    assert not run(config, folder, display=QUIET).worked, "it was decided"
    page = (folder / "report.html").read_text()
    assert ("This is the only attack that the run has met" in page) == (worth == 0)
    assert ("`advntk evaluate RUN --tier standard --images 5`" in page) == (worth == 0)
    out = advntk("-q", "run", folder / "config.toml", "--out", folder)[1]
    assert ("This is the only attack that the run has met" in out) == (worth == 0)


def test_the_tier_of_a_run_goes_on_where_it_was_ended(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(filled, tmp_path / "run")
    config = small("evaluation.tier=standard", "evaluation.tier_images=10")
    write = Records.write

    def ended(self: Records, start: int, values: NDArray[np.float64]) -> None:
        if self.where.endswith("early_stopped_square"):
            raise KeyboardInterrupt
        write(self, start, values)

    with monkeypatch.context() as patch:
        patch.setattr(Records, "write", ended)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder, display=QUIET)
    assert not (folder / "results.json").exists()
    written: list[str] = []

    def counted(self: Records, start: int, values: NDArray[np.float64]) -> None:
        written.append(self.where.rpartition("/")[2])
        write(self, start, values)

    with monkeypatch.context() as patch:
        patch.setattr(Records, "write", counted)
        assert run(config, folder, display=QUIET).results["tier"]["worth"]
    done = {name for name in written if not name.endswith("seconds")}
    assert "early_stopped_square" in done
    assert not any(name.startswith("ntk_") or name == "early_stopped_fgsm" for name in done)


def test_outcomes_of_another_number_of_images_do_not_count(copy: Path) -> None:
    places = []
    for images in (20, 30):
        evaluate_run_tier(copy, "standard", images=images, display=QUIET)
        places.append(next((copy / "evaluation.zarr").glob(f"standard_*_images{images}")))
    few, many = places
    for name in ("ntk_clean", "commits/ntk_clean"):
        shutil.rmtree(many / name)
        shutil.copytree(few / name, many / name)
    counted = outcomes(copy).others
    assert {found.label: sorted(found.methods) for found in counted}[many.name] == ["adv_ntk", "early_stopped"]
    with pytest.raises(StoreDamagedError, match="move it away, and the same command computes its own again"):
        evaluate_run_tier(copy, "standard", images=30, display=QUIET)
    shutil.rmtree(many)
    before = results_of(copy)["worst_case"]
    evaluate_run_tier(copy, "standard", images=30, display=QUIET)
    assert results_of(copy)["worst_case"] == before
    many.rename(copy / "aside")
    few.rename(many)
    with pytest.raises(StoreDamagedError, match="images is 20, not 30"):
        evaluate_run_tier(copy, "standard", images=30, display=QUIET)


def test_a_tier_of_another_run_is_not_shown(copy: Path, filled: Path, tmp_path: Path) -> None:
    other = shutil.copytree(filled, tmp_path / "other")
    run(small("attack.radius=0.1"), other, display=QUIET)
    evaluate_run_tier(copy, "fast", images=5, display=QUIET)
    check_run(copy, images=5, display=QUIET)
    for name in ("evaluation", "check.json"):
        (shutil.copytree if (copy / name).is_dir() else shutil.copy)(copy / name, other / name)
        with pytest.raises(StoreDamagedError, match=r"is of another run \(configuration is"):
            rebuild_report(other, display=QUIET)
        (shutil.rmtree if (other / name).is_dir() else Path.unlink)(other / name)
    rebuild_report(other, display=QUIET)


def test_an_attack_that_leaves_the_ball_counts_only_where_it_is_alone() -> None:
    own = attack_set("own", "a", ntk=[0, 1, 1], adv=[0, 1, 1])
    alone = WorstCase.of(own, [], keeps_own=False)
    assert [s.label for s in alone.sets] == ["own"]
    held = WorstCase.of(own, [attack_set("tier", "b", ntk=[1, 1, 0], adv=[1, 0, 1])], keeps_own=False)
    assert [s.label for s in held.sets] == ["tier"]
    assert held.methods["ntk"].robust_right.tolist() == [True, True, False]


def test_radii_that_almost_agree_have_places_of_their_own(copy: Path) -> None:
    evaluate_again(copy, "pgd", ["radius=0.2000001"], display=QUIET)
    assert len(list((copy / "evaluation.zarr").glob("pgd_linf_r0.2*"))) == 2


def test_fewer_images_under_all_attacks_are_said(copy: Path) -> None:
    shown = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115 - for the console's life
    evaluate_run_tier(copy, "standard", images=10, display=Display(shown))
    assert "rests on the first 10 test images now, which have met them all, before on 60" in shown.export_text()


def test_a_changed_list_of_attacks_is_named(copy: Path, refused: Refused) -> None:
    evaluate_run_tier(copy, "standard", images=10, display=QUIET)
    body = results_of(copy)
    body["worst_case"]["sets"][1] = "invented"
    (copy / "results.json").write_text(json.dumps(body))
    err = refused(3, "-q", "run", str(copy / "config.toml"), "--out", str(copy))
    assert "worst_case.sets[1] is 'invented'" in err
    assert "not whole any more" not in err


def test_the_runs_own_attack_is_named_where_it_does_not_count(filled: Path, tmp_path: Path, advntk: Command) -> None:
    folder = shutil.copytree(filled, tmp_path / "run")
    run(small("attack.name=pgd-reference"), folder, display=QUIET)
    evaluate_run_tier(folder, "standard", images=10, display=QUIET)
    out = advntk("-q", "run", str(folder / "config.toml"), "--out", str(folder))[1]
    assert "under the worst of 7 attacks on each of 10 test images" in out
    assert "under the run's own attack alone, pgd-reference on squared error (3 steps of 0.04" in out
