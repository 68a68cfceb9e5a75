"""A report on images that are there twice says so in its headline and its warnings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advntk_dist.data import Dataset
from advntk_dist.data.duplicates import find_duplicates
from advntk_dist.report import ReportInputs, write_report
from advntk_dist.report.sentences import summarise

Make = Callable[..., ReportInputs]


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
