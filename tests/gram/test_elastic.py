"""A build whose cluster has nothing to compute with at first, and gets its first GPU last; then it loses that again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Answer = dict[str, Any]


@pytest.fixture(scope="module")
def answers(drive: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    driver, folder = Path(__file__).with_name("elastic_driver.py"), tmp_path_factory.mktemp("elastic")
    return dict(json.loads(drive(driver, str(folder), timeout=280)))


def test_a_build_waits_for_a_core_and_moves_to_a_gpu(answers: dict[str, Answer]) -> None:
    answer = answers["grown"]
    print(f"from joining to the first tile: {answer['join_to_tile']:.1f} s")
    # The first node's worker had as much to do; a machine with other work takes longer for both.
    assert answer["join_to_tile"] < max(30, 3 * answer["first_join_to_tile"])
    assert answer["right"]
    assert answer["tiles"] == answer["distinct"] == answer["total"] == 78
    assert answer["planned"] == [1]
    started = {e["worker"]: e["gpu"] for e in answer["events"] if e["event"] == "worker_started"}
    retired = [e["worker"] for e in answer["events"] if e["event"] == "worker_retired"]
    assert [started[w] for w in answer["workers"]] == [False, True]
    assert answer["workers"][0] in retired, "the core's worker has made way"
    assert not [e for e in answer["events"] if e["event"] in ("worker_lost", "tile_again")]


def test_a_node_is_removed(answers: dict[str, Answer]) -> None:
    """The matrix is that of an undisturbed build, to the last bit."""
    answer = answers["removed"]
    assert answer["ok"]
    assert answer["same"]
    assert answer["tiles"] == answer["distinct"] == answer["total"] == 78
    assert len(answer["lost"]) >= 1
    assert answer["nodes"] == 2


@pytest.mark.cluster
def test_the_autoscaler_of_ray_brings_nodes_and_takes_them_away(drive: Callable[..., str], tmp_path: Path) -> None:
    answer = json.loads(drive(Path(__file__).with_name("autoscale_driver.py"), str(tmp_path), timeout=280))
    assert answer["ok"]
    assert answer["nodes"] == answer["builders"] == 2, "from none to as many as the autoscaler may bring"
    assert answer["started"] >= 3, "one was asked for that it could not bring"
    assert answer["left"] == 1, "nothing is asked for when the build is over, and only the head stays"
