"""A node that joins an evaluation gets batches, and one that dies with them leaves none undone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.cluster
def test_a_node_joins_and_dies(drive: Callable[..., str]) -> None:
    answer = json.loads(drive(Path(__file__).with_name("growth_driver.py"), timeout=290))
    print(f"from joining to the first batch: {answer['join_to_batch']:.1f} s")
    assert answer["each_once"]
    assert answer["agree"], "one image gets one guess, whoever judges it"
    assert answer["lost"]
    assert answer["join_to_batch"] < 60
