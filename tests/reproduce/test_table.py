"""The table: rows, intervals, what differs from the paper."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from advntk_dist.reproduce.table import cells_of, collect, markdown

from . import cell


def test_markdown_is_as_it_should_be() -> None:
    cells = [
        cell("adv-ntk", "pgd", 0, 0.40, 0.24),
        cell("adv-ntk", "pgd", 1, 0.42, 0.25),
        cell("adv-ntk", "pgd-reference", 0, 0.41, 0.30),
        cell("at", "pgd", 0, 0.45, 0.2, at_steps=2_000, n_train=500),
    ]
    lines = markdown(*cells_of(collect(cells))).splitlines()
    assert lines[0] == (
        "| dataset | network | radius | method | clean, pgd | robust, pgd | clean, pgd-reference "
        "| robust, pgd-reference | seeds | n_train | n_test | differs from the paper |"
    )
    assert lines[2] == (
        "| cifar10 | mlp-5 | 8/255 | at | 45.0 | 20.0 |  |  | 1 and 0 | 500 | 2000 | 500 training images instead of "
        "10,000; 2,000 steps (milestones in proportion) instead of 20,000; width 256 as the paper states (its scripts: "
        "512 for MLPs) |"
    )
    assert lines[3] == (
        "| cifar10 | mlp-5 | 8/255 | adv-ntk | 41.0 ± 1.4 | 24.5 ± 0.7 | 41.0 | 30.0 | 2 and 1 | 10000 | 2000 | no |"
    )
    assert "also trained" in lines[-1]


def test_datasets_of_one_label_have_rows_of_their_own() -> None:
    rows = collect([cell("ntk", "pgd", 0, 0.5, 0.1), cell("ntk", "pgd", 0, 0.3, 0.2, data="b" * 64)])
    assert [row["pgd"]["clean"]["mean"] for row in rows] == [50, 30]
    assert [line[0] for line in cells_of(rows)[1]] == ["cifar10 (a)", "cifar10 (bbbbbbbbbbbb)"]


def test_the_interval_is_students() -> None:
    robust = [0.20, 0.24, 0.25]
    found = collect([cell("ntk", "pgd", seed, 0.5, value) for seed, value in enumerate(robust)])[0]["pgd"]
    expected = stats.t.interval(0.95, 2, loc=23, scale=stats.sem([20, 24, 25]))
    assert found["robust"]["interval"] == pytest.approx(expected)
    assert found["clean"]["interval"] == [50, 50]
    wide = collect([cell("ntk", "pgd", seed, 0.5, value) for seed, value in enumerate([0.0, 1.0])])[0]["pgd"]
    assert wide["robust"]["interval"] == [0, 100]


def test_widths_are_held_to_the_papers() -> None:
    def differs(**other: Any) -> str:
        return str(collect([cell("at", "pgd", 0, 0.4, 0.2, **other)])[0]["differs"])

    assert differs() == "width 256 as the paper states (its scripts: 512 for MLPs)"
    assert differs(network="cnn-3") == ""
    assert differs(width=64) == "width 64 instead of 256"
