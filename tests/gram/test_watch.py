from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.gram.build import build_gram
from advntk_dist.gram.status import read_builder, watch_path
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.worker import Receipt, WorkerPool
from advntk_dist.networks import Network
from advntk_dist.storage.paths import local

ASK = """
import json, sys
from advntk_dist.gram.store import GramStore
status = GramStore.open(sys.argv[1]).status()
print(json.dumps(status.as_dict() | {"text": str(status)}))
assert "ray" not in sys.modules, "asking for the status should not load Ray"
"""


def test_status_without_a_build(fill: Any) -> None:
    store = fill(places=[(0, 0), (0, 1), (3, 3)])
    status = store.status()
    assert (status.done, status.total, status.complete, status.damaged) == (3, 10, False, 0)
    assert status.bytes == 3 * 260
    assert (status.workers, status.retries) == (None, None)
    assert fill(places=[]).status().done == 3
    empty = fill("empty.zarr", places=[]).status()
    assert (empty.done, empty.rate, empty.seconds_left) == (0, None, None)
    assert str(empty) == "0 of 10 tiles, 0 GiB; no build is running"


def test_status_from_another_process_during_a_build(
    pool: WorkerPool, net: Network, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    answers: list[dict[str, Any]] = []

    def ask(done: int, total: int, receipt: Receipt | None) -> None:
        if receipt is not None and not answers:
            command = [sys.executable, "-c", ASK, str(tmp_path / "a.zarr")]
            answers.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))

    store = build_gram(net, images, store=tmp_path / "a.zarr", tile=3, workers=1, pool=pool, on_progress=ask)
    (answer,) = answers
    assert answer["total"] == 45
    assert 1 <= answer["done"] < 45
    assert (answer["workers"], answer["workers_lost"], answer["retries"]) == (1, 0, 0)
    assert answer["text"].startswith(f"{answer['done']} of 45 tiles")
    assert answer["text"].endswith("; 1 workers, 0 lost, 0 tiles handed out again")
    if answer["rate"]:
        assert answer["seconds_left"] == pytest.approx((45 - answer["done"]) / answer["rate"])
    assert not watch_path(store.path).exists()
    assert GramStore.open(store.path).status().workers is None


def test_builder_that_died_is_not_reported(tmp_path: Path) -> None:
    state = {"pid": os.getpid(), "host": socket.gethostname(), "started_unix": 0.0, "updated_unix": 1.0}
    state |= {"done": 1, "total": 9}
    file = local(watch_path(tmp_path / "a.zarr"))
    file.write_text(json.dumps(state))
    assert read_builder(tmp_path / "a.zarr") is not None
    file.write_text(json.dumps(state | {"pid": 2**22 + 1}))
    assert read_builder(tmp_path / "a.zarr") is None
    file.write_text(json.dumps(state | {"host": "elsewhere"}))
    assert read_builder(tmp_path / "a.zarr") is None
    file.write_text("{")
    assert read_builder(tmp_path / "a.zarr") is None
