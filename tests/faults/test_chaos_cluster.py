"""A node dies and another joins during one build; the matrix is that of an undisturbed build, to the last bit.

That one is removed in good order has its test in tests/gram/test_elastic.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("cluster_driver.py")
Drive = Callable[..., str]


@pytest.mark.cluster
def test_a_raylet_dies_and_a_node_joins(tmp_path: Path, drive: Drive) -> None:
    answer = json.loads(drive(DRIVER, str(tmp_path), timeout=290))
    print(f"from joining to the first tile: {answer['join_to_tile']:.1f} s")
    assert answer["ok"]
    assert answer["same"]
    assert answer["tiles"] == answer["distinct"] == answer["total"] == 820
    assert len(answer["lost"]) >= 1
    assert answer["nodes"] == 4, "the head, the node that died, the one that stayed and the one that joined"
    assert answer["join_to_tile"] < 30, "4 s on two cores, 8 to 13 s where they have six times as much to do"
