"""A whole raylet of a cluster of several nodes dies, and a new node joins, during one build."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.cluster
@pytest.mark.timeout(700)
def test_raylet_dies_and_a_node_joins(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("cluster_driver.py")), str(tmp_path / "gram.zarr")],
        capture_output=True, text=True, env=environment, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["ok"]
    assert answer["tiles"] == answer["distinct"] == answer["total"] == 7260
    assert len(answer["lost"]) == 1
    assert answer["nodes"] == 3, "the head, the node that died and the node that joined"
    assert answer["workers_after"] >= 2
    assert answer["attempts"] <= 2
