"""An evaluation waits for a node, gives batches to one that joins, and leaves none of one that dies undone."""

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
    assert answer["started"][:2] == [False, True], "a core's worker, and a GPU's that takes over"
    assert answer["retired"][0] is False
    assert answer["lost"] >= 1
    assert answer["started"].count(False) >= 2, "cores go on when the GPU is gone"
    assert answer["join_to_batch"] < 30
