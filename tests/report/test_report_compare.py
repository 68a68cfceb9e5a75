"""Runs side by side: what the page claims, what it lists, what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from advntk_dist.errors import RequestError
from advntk_dist.report.compare import ComparedRun, headline, write_comparison
from advntk_dist.report.paired import Difference, Pair


def test_the_page_has_every_method_of_every_run_and_only_settings_that_differ(compared: Path) -> None:
    page = compared.read_text(encoding="utf-8")
    for run in ("first", "second", "third"):
        for method in ("NTK", "Early-stopped NTK", "Adv-NTK"):
            assert f"{run}: {method}" in page
    assert "<code>train.lr</code>" in page
    assert "<code>data.seed</code>" not in page
    assert page.count("<picture>") == 1
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)


def test_the_headline_claims_a_difference_only_beyond_the_intervals(
    comparable: Callable[..., ComparedRun],
) -> None:
    near = headline([comparable("a"), comparable("b", 0.02)])
    assert "within the intervals of" in near
    far = headline([comparable("a"), comparable("b", 0.3)])
    assert far == "Adv-NTK of b is the most robust, 67.0%, beyond the intervals of Early-stopped NTK of a, 39.0%"


def pair(low: float, high: float) -> Pair:
    difference = Difference((low + high) / 2, (low, high))
    return Pair("b: Adv-NTK", "a: Early-stopped NTK", 497, difference, difference)


@pytest.mark.parametrize(
    ("same", "says"),
    [
        (pair(0.01, 0.03), "more than chance on the same images"),
        (pair(-0.01, 0.05), "which may be chance"),
    ],
)
def test_the_headline_takes_the_same_images_where_it_can(
    comparable: Callable[..., ComparedRun], same: Pair, says: str
) -> None:
    runs = [comparable("a"), comparable("b", 0.03)]
    words = "Adv-NTK of b is the most robust, 40.0%; Early-stopped NTK of a, 39.0%; "
    assert headline(runs, [same]) == words + says
    assert "within the intervals" in headline(runs, [replace(same, method="c: Adv-NTK")])


def test_a_difference_that_rounds_to_nothing_has_no_minus() -> None:
    assert str(Difference(0.0, (-0.0002, 0.0002))) == "+0.0 (+0.0 to +0.0)"
    assert str(Difference(-0.026, (-0.033, 0.002))) == "-2.6 (-3.3 to +0.2)"


def test_the_headline_is_of_different_runs(comparable: Callable[..., ComparedRun]) -> None:
    assert headline([comparable("a", 0.3), comparable("b")]).count(" of a") == 1


def test_names_are_escaped(comparable: Callable[..., ComparedRun], tmp_path: Path) -> None:
    page = write_comparison([comparable("<i>x</i>"), comparable("b")], tmp_path / "c.html").read_text("utf-8")
    assert "<i>x</i>" not in page
    assert "&lt;i&gt;x&lt;/i&gt;" in page


def test_a_place_that_cannot_be_written_is_named(comparable: Callable[..., ComparedRun], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"file/c\.html.*--out"):
        write_comparison([comparable("a"), comparable("b")], tmp_path / "file" / "c.html")
