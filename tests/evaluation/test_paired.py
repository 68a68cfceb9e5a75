"""Differences on the same images: the interval holds what it promises, and rows say who is meant."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, bootstrap

from advntk_dist.evaluation import MethodResult
from advntk_dist.evaluation.statistics import paired_differences, paired_interval, wilson_interval

Z = 1.959963984540054


def result(clean: list[int], robust: list[int]) -> MethodResult:
    return MethodResult.of(np.array(clean), np.array(robust), 0.1)


def test_every_pair_is_there_once_with_its_sign() -> None:
    rows = paired_differences(
        {
            "ntk": result([1, 1, 1, 1], [0, 0, 0, 1]),
            "early_stopped": result([1, 1, 0, 0], [1, 1, 0, 0]),
            "adv_ntk": result([1, 1, 1, 0], [1, 1, 1, 0]),
        }
    )
    found = [(r["method"], r["against"], r["n_test"], r["clean"], r["robust"]) for r in rows]
    assert found == [
        ("early_stopped", "ntk", 4, -0.5, 0.25),
        ("adv_ntk", "ntk", 4, -0.25, 0.5),
        ("adv_ntk", "early_stopped", 4, 0.25, 0.25),
    ]
    assert rows[0]["robust_interval"] == list(paired_interval(2, 1, 4))
    assert rows[0]["clean_interval"] == list(paired_interval(0, 2, 4))


def test_other_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="adv_ntk was judged on 2 images and ntk on 3"):
        paired_differences({"ntk": result([1, 1, 1], [0, 0, 0]), "adv_ntk": result([1, 1], [0, 0])})


def test_one_method_alone_has_no_pair() -> None:
    assert paired_differences({"ntk": result([1], [0])}) == []


@pytest.mark.parametrize(("won", "lost", "n"), [(0, 0, 1), (0, 0, 500), (7, 0, 7), (3, 11, 40), (200, 150, 2000)])
def test_interval_is_that_of_bonett_and_price(won: int, lost: int, n: int) -> None:
    low, high = paired_interval(won, lost, n)
    a, b = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = Z * np.sqrt((a + b - (a - b) ** 2) / (n + 2))
    assert low == pytest.approx(max(-1, a - b - half), abs=1e-12)
    assert high == pytest.approx(min(1, a - b + half), abs=1e-12)
    assert -1 <= low < high <= 1
    assert paired_interval(lost, won, n) == pytest.approx((-high, -low), abs=1e-12)


@pytest.mark.parametrize("chances", [(0.05, 0.03), (0.1, 0.1), (0.3, 0.1), (0.02, 0.0)])
def test_interval_holds_the_truth_as_often_as_it_says(chances: tuple[float, float]) -> None:
    n, (up, down) = 150, chances
    covered = 0.0
    for won in range(n + 1):
        of_rest = binom.pmf(np.arange(n - won + 1), n - won, down / (1 - up))
        for lost in np.flatnonzero(of_rest > 1e-9):
            low, high = paired_interval(won, int(lost), n)
            covered += float(binom.pmf(won, n, up) * of_rest[lost]) * (low <= up - down <= high)
    assert 0.94 <= covered <= 0.995


def test_many_images_give_the_interval_of_the_bootstrap() -> None:
    differences = np.repeat([1.0, -1.0, 0.0], [260, 180, 2000 - 440])
    ends = bootstrap((differences,), np.mean, method="percentile", rng=np.random.default_rng(3), batch=200)
    assert paired_interval(260, 180, 2000) == pytest.approx(tuple(ends.confidence_interval), abs=1e-3)


def test_pairing_finds_what_single_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    old = rng.random(2000) < 0.4
    new = old | (rng.random(2000) < 0.03)
    (row,) = paired_differences({"a": MethodResult.of(old, old, 0.0), "b": MethodResult.of(new, new, 0.0)})
    singles = [wilson_interval(float(v.mean()), 2000) for v in (old, new)]
    assert singles[0][1] > singles[1][0], "the single intervals overlap"
    assert row["robust_interval"][0] > 0
