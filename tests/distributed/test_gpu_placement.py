"""Placement on a machine that Ray believes to have GPUs: what can be shown of it without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
import ray

from advntk_dist.distributed.worker import FAKE_GPUS, unused_gpu, worker_environment

DRIVER = """
import json, os, sys
import numpy as np
import psutil
import ray
from advntk_dist.gram.build import build_gram
from advntk_dist.networks import network

ray.init("local", num_cpus=3, num_gpus=2, include_dashboard=False, log_to_driver=False)
seen, events = {}, []

def progress(done, total, receipt):
    if receipt is not None and receipt.pid not in seen:
        seen[receipt.pid] = psutil.Process(receipt.pid).environ()
        seen[receipt.pid]["free"] = ray.available_resources().get("GPU", 0)

x = np.random.default_rng(0).integers(0, 256, (240, 4, 4, 1), dtype=np.uint8)
build_gram(network("mlp-2"), x, store=sys.argv[1], tile=4, on_progress=progress, on_event=events.append)
print(json.dumps({"seen": list(seen.values()), "started": sum(e["event"] == "worker_started" for e in events)}))
"""


def _drive(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder / "a.zarr")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.slow
def test_one_worker_a_gpu(tmp_path: Path) -> None:
    done = _drive(tmp_path, **{FAKE_GPUS: "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert answer["started"] == 2, "one worker for each of two GPUs, none for the third core"
    for seen in answer["seen"]:
        assert seen["free"] == 0
        assert "JAX_PLATFORMS" not in seen
        assert seen["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
        assert seen["NPROC"] == "1"


@pytest.mark.slow
def test_a_gpu_that_jax_does_not_use_ends_the_build(tmp_path: Path) -> None:
    done = _drive(tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "GramBuildError: a worker on " in last
    assert "JAX computes on the CPU there; install jax[cuda13]" in last


@pytest.mark.parametrize(
    ("held", "backend", "fake", "wrong"),
    [(["1"], "cpu", "", True), (["1"], "gpu", "", False), ([], "cpu", "", False), (["1"], "cpu", "1", False)],
)
def test_who_holds_a_gpu_computes_on_it(
    monkeypatch: pytest.MonkeyPatch, held: list[str], backend: str, fake: str, wrong: bool
) -> None:
    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": held, "TPU": []})
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setenv(FAKE_GPUS, fake)
    said = unused_gpu()
    assert (said is not None) == wrong
    assert said is None or said.startswith("holds GPU 1, and JAX computes on the CPU there; install")


def test_workers_without_a_gpu_never_see_one() -> None:
    assert worker_environment(2, gpu=False)["JAX_PLATFORMS"] == "cpu"
    assert worker_environment(2, gpu=False)["CUDA_VISIBLE_DEVICES"] == ""
    assert not {"JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"} & worker_environment(2, gpu=True).keys()
