"""Runs side by side: what the page claims, what it lists, what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.errors import RequestError
from advntk_dist.report.compare import ComparedRun, ComparisonVerdict, headline, write_comparison
from advntk_dist.results.schema import PairRow


def test_the_page_has_every_method_of_every_run_and_only_settings_that_differ(compared: Path) -> None:
    page = compared.read_text(encoding="utf-8")
    for run in ("first", "second", "third"):
        for method in ("NTK", "Early-stopped NTK", "Adv-NTK"):
            assert f"{run}: {method}" in page
    assert "<code>train.lr</code>" in page
    assert "<code>data.seed</code>" not in page
    assert page.count("<svg") == 1
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)


@pytest.mark.parametrize(
    ("shifts", "says", "winner"),
    [
        ((0.0, 0.03), "No winner: Adv-NTK of b (40.0%) and Early-stopped NTK of a (39.0%) are within chance", None),
        ((0.0, 0.3), "Adv-NTK of b is the most robust: 67.0%", "b: Adv-NTK"),
        ((0.3, 0.0), "Adv-NTK of a is the most robust: 67.0%", "a: Adv-NTK"),
        ((0.0, 0.3, 0.29), "No winner: Adv-NTK of b (67.0%) and Adv-NTK of c (66.0%) are within chance", None),
    ],
)
def test_the_headline_claims_a_difference_only_beyond_the_intervals_of_every_other_run(
    comparable: Callable[..., ComparedRun], shifts: tuple[float, ...], says: str, winner: str | None
) -> None:
    runs = [comparable(name, shift) for name, shift in zip("abc", shifts, strict=False)]
    assert headline(runs) == ComparisonVerdict(says, winner)


def pair(low: float, high: float, method: str = "b: Adv-NTK") -> PairRow:
    value, ends = (low + high) / 2, (low, high)
    return PairRow(
        method=method, against="a: Early-stopped NTK", n_test=497,
        clean=value, clean_interval=ends, robust=value, robust_interval=ends,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("same", "says"),
    [
        (pair(0.01, 0.03), "Adv-NTK of b is the most robust: 40.0%"),
        (pair(-0.01, 0.05), "No winner: Adv-NTK of b (40.0%) and Early-stopped NTK of a (39.0%) are within chance"),
    ],
)
def test_the_headline_takes_the_same_images_where_it_can(
    comparable: Callable[..., ComparedRun], same: PairRow, says: str
) -> None:
    runs = [comparable("a"), comparable("b", 0.03)]
    assert headline(runs, [same]).words == says
    assert headline(runs, [pair(*same.robust_interval, method="c: Adv-NTK")]).winner is None


def images(**changes: object) -> dict[str, Any]:
    return {"data": "0123456789abcdef", "split": {"seed": 0}} | changes


@pytest.mark.parametrize(
    ("other", "shift", "says"),
    [
        (images(data="fedcba9876543210"), 0.3, "No winner: the runs met different data"),
        (images(split={"seed": 1}), 0.3, "Adv-NTK of b is the most robust: 67.0%, each on its own test images"),
        (
            images(split={"seed": 1}),
            0.03,
            "No winner: Adv-NTK of b (40.0%) and Early-stopped NTK of a (39.0%), on different test images, are within "
            "chance",
        ),
        (images(), 0.3, "Adv-NTK of b is the most robust: 67.0%"),
    ],
)
def test_other_images_have_no_winner_without_an_interval(
    comparable: Callable[..., ComparedRun], other: dict[str, Any], shift: float, says: str
) -> None:
    runs = [replace(comparable("a"), images=images()), replace(comparable("b", shift), images=other)]
    # An interval of a difference on the same images, which these runs cannot have unless the images are the same.
    found = headline(runs, [pair(0.01, 0.03)])
    assert found.words == says
    assert (found.winner is None) == says.startswith("No winner")


@pytest.mark.parametrize("key", ["dataset", "attack"])
def test_what_the_results_say_of_the_images_counts_where_nothing_else_does(
    comparable: Callable[..., ComparedRun], key: str
) -> None:
    runs = [comparable("a"), replace(comparable("b", 0.3), images=images())]
    if key == "dataset":
        runs[0].results.dataset = "other"
    else:
        runs[0].results.met.attacks[0]["radius"] = 0.1
    assert headline(runs).winner is None


def test_other_data_are_a_difference_of_the_page(comparable: Callable[..., ComparedRun], tmp_path: Path) -> None:
    def written(*found: dict[str, Any] | None) -> str:
        runs = [replace(comparable(name), images=seen) for name, seen in zip("ab", found, strict=True)]
        return write_comparison(runs, tmp_path / "c.html").read_text("utf-8")

    other = written(images(), images(data="fedcba9876543210"))
    assert "<code>data fingerprint</code></th><td>0123456789ab</td><td>fedcba987654</td>" in other
    assert "Nothing:" not in other
    assert "the configurations are the same, and so are the data." in written(images(), images())
    assert "the fingerprint of the data is not beside every run." in written(None, None)


def test_the_total_comes_last_and_names_are_escaped(comparable: Callable[..., ComparedRun], tmp_path: Path) -> None:
    runs = [comparable("<i>x</i>"), comparable("b")]
    runs[1].results.seconds["later stage"] = 1.0
    page = write_comparison(runs, tmp_path / "c.html").read_text("utf-8")
    times = page[page.index("<h2>Time by stage") :]
    assert times.index("Gram matrix") < times.index("later stage") < times.index("Total")
    assert "<i>x</i>" not in page
    assert "&lt;i&gt;x&lt;/i&gt;" in page


def test_a_place_that_cannot_be_written_is_named(comparable: Callable[..., ComparedRun], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"file/c\.html.*--out"):
        write_comparison([comparable("a"), comparable("b")], tmp_path / "file" / "c.html")
