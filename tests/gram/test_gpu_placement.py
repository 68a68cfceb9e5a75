"""Placement on a machine that Ray believes to have GPUs: what can be shown of it without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.gram.worker import worker_environment

DRIVER = """
import json, os, sys
from pathlib import Path
import numpy as np
import ray
from advntk_dist.gram.build import build_gram
from advntk_dist.networks import network

ray.init("local", num_cpus=3, num_gpus=2, include_dashboard=False, log_to_driver=False)
seen, events = {}, []

def environ(pid):
    pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\\0")
    return dict(p.decode(errors="replace").split("=", 1) for p in pairs if b"=" in p)

def progress(done, total, receipt):
    if receipt is not None and receipt.pid not in seen:
        seen[receipt.pid] = environ(receipt.pid)
        seen[receipt.pid]["free"] = ray.available_resources().get("GPU", 0)

x = np.random.default_rng(0).integers(0, 256, (240, 4, 4, 1), dtype=np.uint8)
build_gram(network("mlp-2"), x, store=sys.argv[1], tile=4, on_progress=progress, on_event=events.append)
print(json.dumps({"seen": list(seen.values()), "started": sum(e["event"] == "worker_started" for e in events)}))
"""


@pytest.mark.slow
def test_one_worker_a_gpu(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "a.zarr")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert answer["started"] == 2, "one worker for each of two GPUs, none for the third core"
    for seen in answer["seen"]:
        assert seen["free"] == 0
        assert "JAX_PLATFORMS" not in seen
        assert seen["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
        assert seen["NPROC"] == "1"


def test_workers_without_a_gpu_never_see_one() -> None:
    assert worker_environment(2, gpu=False)["JAX_PLATFORMS"] == "cpu"
    assert worker_environment(2, gpu=False)["CUDA_VISIBLE_DEVICES"] == ""
    assert not {"JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"} & worker_environment(2, gpu=True).keys()
