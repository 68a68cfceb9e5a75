"""The summary says what the numbers say, above all when Adv-NTK does not help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advntk_dist.data import Dataset
from advntk_dist.data.duplicates import find_duplicates
from advntk_dist.report import DegenerationCurve, KernelSpectrum, ReportInputs, write_report
from advntk_dist.report.attacks import attack_words, under_attack
from advntk_dist.report.judgements import MethodScore, chance_of, headline, highlighted, method_scores, warnings
from advntk_dist.report.page import flatten, stages
from advntk_dist.report.sentences import ALONE, compare, degeneration, summarise
from advntk_dist.results.schema import MethodRow, PairRow, WorstCaseResults
from advntk_dist.text import (
    as_number,
    as_percent,
    as_points,
    as_radius,
    duration,
    signed,
    signed_with_interval,
    with_interval,
)
from tests.stored_results import accuracies, under_one_attack

Make = Callable[..., ReportInputs]


def score(robust: float, clean: float = 0.9) -> MethodScore:
    return MethodScore(
        key="adv_ntk", title="Adv-NTK", detail="", n_test=500, max_perturbation=0.2,
        clean=clean, clean_interval=(clean, clean), robust=robust, robust_interval=(robust - 0.02, robust + 0.02),
    )  # fmt: skip


def pair(low: float, high: float) -> PairRow:
    return PairRow(
        method="adv_ntk", against="early_stopped", n_test=2000, robust=(low + high) / 2, robust_interval=(low, high),
        clean=0.014, clean_interval=(0.006, 0.022),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("adv", "same", "says", "never"),
    [
        (
            score(0.41),
            pair(0.013, 0.027),
            "2.0 points above the early-stopped NTK in robust accuracy (95% interval +1.3 to +2.7, on the same 2,000 "
            "images), more than chance.",
            "not better",
        ),
        (
            score(0.41),
            pair(-0.001, 0.041),
            "(95% interval −0.1 to +4.1, on the same 2,000 images), which may be chance: this run alone does not show",
            "more than chance",
        ),
        (
            score(0.38),
            pair(-0.019, -0.001),
            "not better here: it is 1.0 point below the early-stopped NTK in robust accuracy (95% interval −1.9 to "
            "−0.1, on the same 2,000 images), more than chance.",
            "above",
        ),
        (score(0.38), pair(-0.03, 0.01), "−3.0 to +1.0, on the same 2,000 images), which may be chance.", "above"),
        (
            score(0.39),
            pair(-0.01, 0.01),
            "no better than the early-stopped NTK here: both keep 39.0% (95% interval of the difference −1.0 to +1.0, "
            "on the same 2,000 images).",
            "above",
        ),
        (
            score(0.41, clean=0.93),
            pair(0.013, 0.027),
            "Its clean accuracy is 3.0 points higher (95% interval +0.6 to +2.2, more than chance).",
            "lower",
        ),
        (score(0.41, clean=0.85), pair(0.013, 0.027), "Its clean accuracy is 5.0 points lower", "higher"),
    ],
)
def test_methods_are_compared_on_the_same_images(adv: MethodScore, same: PairRow, says: str, never: str) -> None:
    sentence = compare(adv, score(0.39), same)
    assert says in sentence
    assert never not in sentence.replace("more than chance).", "")


def test_summary_takes_the_pair_of_the_results(make: Make, results: dict[str, Any]) -> None:
    points = dict(summarise(make(results=results)).points)
    assert (
        "(95% interval −5.3 to +0.8, on the same 497 images), which may be chance." in points["A time for each sample"]
    )


CURVE = DegenerationCurve(
    (0.01, 0.1, 1.0),
    (accuracies(0.8, 0.3, 500), accuracies(0.9, 0.4, 500), accuracies(0.95, 0.3, 500)),
    accuracies(0.99, 0.2, 500),
    0.1,
)


def ending(clean: float = 0.99, robust: float = 0.2) -> DegenerationCurve:
    """The curve with these accuracies at t = infinity."""
    return replace(CURVE, limit=accuracies(clean, robust, 500))


@pytest.mark.parametrize(
    ("curve", "says"),
    [
        (
            CURVE,
            "costs 20.0 points of robust accuracy: 40.0% at t = 0.1 against 20.0% at t = ∞, while clean accuracy rises",
        ),
        (ending(clean=0.85), "clean accuracy falls from 90.0% to 85.0%"),
        (ending(clean=0.9), "clean accuracy stays at 90.0%"),
        (
            ending(robust=0.38),
            "Degeneration is not shown: robust accuracy is 40.0% at t = 0.1 against 38.0%",
        ),
        (
            ending(robust=0.6),
            "No degeneration at these times: robust accuracy is 60.0% (95% interval 55.6 to 64.2) at t = ∞, and 40.0% "
            "(95% interval 35.8 to 44.4) at the best finite t, 0.1.",
        ),
        (
            ending(robust=0.42),
            "No degeneration is seen at these times, nor ruled out, as the intervals overlap: robust accuracy is 42.0%",
        ),
    ],
)
def test_degeneration(curve: DegenerationCurve, says: str) -> None:
    assert says in degeneration(curve, pair(-0.02, 0.02))


@pytest.mark.parametrize(
    ("robust_ntk", "low", "high", "says"),
    [
        (0.38, 0.006, 0.03, "Training for ever costs 2.0 points of robust accuracy: 40.0% at t = 0.1 against 38.0%"),
        (0.38, -0.01, 0.05, "Degeneration is not shown: robust accuracy is 40.0% at t = 0.1 against 38.0% at t = ∞"),
        (0.2, -0.01, 0.05, "Training for ever costs 20.0 points of robust accuracy"),
        (0.6, -0.3, -0.1, "No degeneration at these times"),
    ],
)
def test_degeneration_follows_the_same_images(robust_ntk: float, low: float, high: float, says: str) -> None:
    words = degeneration(ending(robust=robust_ntk), pair(low, high))
    assert says in words
    gain = "20.0 points less" if low < -0.1 else "1.8 points more" if low > 0 else "2.0 points more"
    assert f"The time that validation chose keeps {gain} than t = ∞ (95% interval " in words
    assert ("which may be chance" in words) == (low < 0 < high)


def methods(**robust: float) -> WorstCaseResults:
    """Methods and their attack, of 400 test images, clean accuracy 0.9."""
    attack = {"name": "fgsm", "loss": "squared-error", "radius": 0.1, "norm": "linf"}
    rows = {
        key: {
            "clean": 0.9, "clean_interval": [0.88, 0.92],
            "robust": value, "robust_interval": [max(0.0, value - 0.04), value + 0.04],
            "n_test": 400, "max_perturbation": 0.1,
        }
        for key, value in robust.items()
    }  # fmt: skip
    return WorstCaseResults.model_validate(under_one_attack(attack, rows, [])["worst_case"])


@pytest.mark.parametrize(
    ("robust", "says", "set_off"),
    [
        (
            {"ntk": 0.3, "early_stopped": 0.5, "adv_ntk": 0.4},
            "Early-stopped NTK is the most robust: 50.0% under {attack}.",
            {"Early-stopped NTK"},
        ),
        (
            {"ntk": 0.3, "early_stopped": 0.5, "adv_ntk": 0.46},
            "Early-stopped NTK keeps 50.0% under {attack}; Adv-NTK (46.0%) is within chance of it.",
            {"Early-stopped NTK", "Adv-NTK"},
        ),
        (
            {"ntk": 0.48, "early_stopped": 0.5, "adv_ntk": 0.46},
            "Early-stopped NTK keeps 50.0% under {attack}; NTK (48.0%) and Adv-NTK (46.0%) are within chance of it.",
            set(),
        ),
        (
            {"ntk": 0.3, "early_stopped": 0.5, "adv_ntk": 0.5},
            "Early-stopped NTK and Adv-NTK keep the same 50.0% under {attack}.",
            {"Early-stopped NTK", "Adv-NTK"},
        ),
        (
            {"ntk": 0.0, "early_stopped": 0.12, "adv_ntk": 0.1},
            "No method is above chance under {attack}: 12.0% at best, where chance is 10.0%.",
            {"Early-stopped NTK", "Adv-NTK"},
        ),
        ({"ntk": 0.3}, "NTK keeps 30.0% under {attack}.", set()),
    ],
)
def test_headline_claims_no_more_than_the_intervals(robust: dict[str, float], says: str, set_off: set[str]) -> None:
    results = methods(**robust)
    scores = method_scores(results.methods)
    best = max(scores, key=lambda score: score.robust)
    shown, words = as_percent(best.robust), "fgsm on squared error (l∞ radius 0.1)"
    expected = says.format(attack=words).replace(shown, with_interval(best.robust, best.robust_interval), 1)
    assert headline(scores, (), chance_of(10, np.arange(400) % 10), under_attack(results)) == expected
    assert highlighted(scores) == set_off


def test_headline_follows_the_interval_of_the_difference(make: Make, results: dict[str, Any]) -> None:
    attack = attack_words(results["attack"])
    assert attack == "pgd (10 steps of 0.04, l∞ radius 0.2)"
    ends = "(95% interval 34.9 to 43.2)"
    tied = f"Early-stopped NTK keeps 39.0% {ends} under {attack}; Adv-NTK (36.8%) is within chance of it."
    assert summarise(make(results=results)).headline == tied
    results["paired"][2] |= {"robust_interval": [-0.04, -0.01]}
    assert (
        summarise(make(results=results)).headline
        == f"Early-stopped NTK is the most robust: 39.0% {ends} under {attack}."
    )


def test_chance_is_the_largest_class(make: Make) -> None:
    uneven = np.array([0, 0, 0, 1, 2])
    assert str(chance_of(3, uneven)) == "60.0% (one answer for all, the largest of 3 classes)"
    points = dict(summarise(make(y_test=uneven)).points)
    assert points["Under attack"].endswith(" Chance: 60.0% (one answer for all, the largest of 10 classes).")


def test_what_was_not_learned_is_a_warning() -> None:
    results = methods(ntk=0.0, early_stopped=0.3, adv_ntk=0.36)
    for key, clean in (("early_stopped", 0.32), ("adv_ntk", 0.9)):
        row = results.methods[key]
        row.clean, row.clean_interval = clean, (clean - 0.04, clean + 0.04)
    spectrum = KernelSpectrum(np.array([4.0, 1.0]), np.array([0.1, 0.1]), 50)
    chance = chance_of(3, np.arange(300) % 3)
    assert warnings(method_scores(results.methods), chance, replace(CURVE, chosen_t=0.01), spectrum) == (
        "Not above chance under attack, which is 33.3% (one answer for all, the largest of 3 classes): Early-stopped "
        "NTK 30.0% (95% interval 26.0 to 34.0) and Adv-NTK 36.0% (95% interval 32.0 to 40.0).",
        "Not above chance on clean images either: Early-stopped NTK 32.0% (95% interval 28.0 to 36.0).",
        "The chosen time is the edge of the grid, its shortest: extend evaluation.times below 0.01, as a better one "
        "may lie there.",
        "No mode of the kernel is learned by the chosen time: the largest eigenvalue times t is 0.04, below 1.",
    )


@pytest.mark.parametrize(("chosen", "says"), [(0.01, "below 0.01"), (0.1, None), (1.0, "above 1")])
def test_a_choice_at_the_edge_of_the_grid_is_a_warning(
    with_curve: Callable[[DegenerationCurve], ReportInputs], chosen: float, says: str | None
) -> None:
    found = summarise(with_curve(replace(CURVE, chosen_t=chosen))).warnings
    assert len(found) == (says is not None)
    assert says is None or f"the edge of the grid, its {'shortest' if chosen < 1 else 'longest'}" in found[0]
    assert says is None or f"extend evaluation.times {says}" in found[0]


def test_a_run_that_learned_has_no_warning(make: Make) -> None:
    assert summarise(make()).warnings == ()


def test_attack_that_leaves_its_ball_is_called_out(make: Make, results: dict[str, Any]) -> None:
    said = dict(summarise(make(results=results)).points)["Attack"]
    assert said.startswith(ALONE)
    assert said.endswith("0.2, within the radius 0.2 (pixel range 1).")
    results["worst_case"]["methods"]["ntk"]["max_perturbation"] = 0.4
    assert "0.4, beyond the radius 0.2: do not compare" in dict(summarise(make(results=results)).points)["Attack"]


def test_attack_words() -> None:
    cifar = {"name": "pgd", "steps": 10, "step_size": 1.6 / 255, "norm": "linf", "radius": float(np.float32(8 / 255))}
    assert attack_words(cifar) == "pgd (10 steps of 1.6/255, l∞ radius 8/255)"
    assert attack_words({"name": "square", "radius": 0.5, "norm": "l2"}) == "square (l2 radius 0.5)"
    assert attack_words({"name": "square", "radius": 0.5}) == "square (radius 0.5)"
    full = {"name": "square", "loss": "margin", "queries": 5000, "restarts": 2, "radius": 0.5, "norm": "l1"}
    assert attack_words(full) == "square on margin (5,000 queries, 2 starts, l1 radius 0.5)"


def test_methods_keep_their_usual_order_and_unknown_ones_follow(results: dict[str, Any]) -> None:
    row = MethodRow.model_validate(results["methods"]["ntk"])
    methods = {"zeta": row, "alpha": row, **dict.fromkeys(reversed(results["methods"]), row)}
    keys = [row.key for row in method_scores(methods)]
    assert keys == ["ntk", "early_stopped", "adv_ntk", "alpha", "zeta"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0316227766, "0.0316"), (50, "50"), (1.0, "1"), (12000, "12,000"), (12000.0, "1.2e+04"), (1e-8, "1e-08"),
     (float("inf"), "∞"), (float("-inf"), "−∞")],
)  # fmt: skip
def test_numbers_for_reading(value: float, text: str) -> None:
    assert as_number(value) == text


def test_percentages_points_and_radii() -> None:
    assert (as_percent(0.39034), as_points(-0.0221), as_points(0.01)) == ("39.0%", "2.2 points", "1.0 point")
    assert [as_radius(v) for v in (8 / 255, 0.2, 0.123456)] == ["8/255", "0.2", "0.123"]


def test_a_difference_that_rounds_to_nothing_has_no_minus() -> None:
    assert signed_with_interval(0.0, (-0.0002, 0.0002)) == "+0.0 (+0.0 to +0.0)"
    assert signed_with_interval(-0.026, (-0.033, 0.002)) == "-2.6 (-3.3 to +0.2)"
    assert signed(-0.026, 0.002) == "−2.6 to +0.2"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.00 s"), (12.34, "12.3 s"), (99.94, "99.9 s"), (99.96, "1 min 40 s"), (200, "3 min 20 s"),
     (3599.4, "59 min 59 s"), (3600, "1 h 00 min"), (7199, "2 h 00 min"), (1e7, "2,777 h 47 min")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_stages_share_the_total() -> None:
    rows = stages({"gram": 1.0, "train": 3.0})
    assert [(row.title, row.share) for row in rows] == [("Gram matrix", 0.25), ("Adv-NTK", 0.75), ("Total", 1.0)]
    assert rows[-1].duration == "4.00 s"
    assert stages({"gram": 0.0})[0].share == 0.0
    assert stages({"flow": 1.0})[0].title == "flow"


def test_flatten_keeps_every_leaf_and_digit() -> None:
    nested = {"a": {"b": 0.1 + 0.2, "c": [1, 2.5]}, "d": [{"e": True}, [None]], "f": {}, "g": "<x>"}
    assert flatten(nested) == [
        ("a.b", "0.30000000000000004"), ("a.c", "[1, 2.5]"), ("d[0].e", "true"), ("d[1]", "[null]"), ("f", "{}"),
        ("g", "<x>"),
    ]  # fmt: skip


def counted(*order: int) -> dict[str, Any]:
    """Of two training, one validation and two test images, numbered so that equal numbers are equal images."""
    x = np.array(order, np.uint8)[:, None, None, None]
    data = Dataset("made", x, np.zeros(len(order), np.int64), ("<b>\x1b[2J",), test_start=3, val_start=2)
    return find_duplicates(data, data.parts).as_dict()


def test_test_images_among_the_training_images_are_in_the_headline(
    make: Make, results: dict[str, Any], tmp_path: Path
) -> None:
    plain = summarise(make(results=results))
    found = make(results=results | {"duplicates": counted(1, 2, 1, 2, 3)})
    told = summarise(found)
    assert told.headline == (
        f"{plain.headline} But 1 of 2 test images and 1 of 1 validation images are also training images."
    )
    assert told.warnings[1:] == plain.warnings
    assert "train 1 = test 0 (rows 1 and 3)" in told.warnings[0]
    page = write_report(found, tmp_path).read_text(encoding="utf-8")
    assert "are also training images.</h1>" in page
    assert "\x1b" not in page


@pytest.mark.parametrize(("order", "warned"), [((1, 1, 2, 3, 4), 1), ((1, 2, 3, 4, 4), 1), ((1, 2, 3, 4, 5), 0)])
def test_others_leave_the_headline(make: Make, results: dict[str, Any], order: tuple[int, ...], warned: int) -> None:
    plain = summarise(make(results=results))
    told = summarise(make(results=results | {"duplicates": counted(*order)}))
    assert told.headline == plain.headline
    assert len(told.warnings) == len(plain.warnings) + warned
