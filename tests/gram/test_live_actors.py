"""What live actors hold, as they say themselves: threads of JAX, BLAS and Zarr, and no GPU that is not theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import cloudpickle

from advntk_dist.data.registry import load_dataset
from advntk_dist.distributed.pool import ActorPool
from advntk_dist.distributed.worker import FAKE_GPUS
from advntk_dist.errors import EvaluationError
from advntk_dist.evaluation.worker import EvaluationWorker
from advntk_dist.gram.build import build_gram
from advntk_dist.gram.worker import WorkerPool
from advntk_dist.networks import network
from advntk_dist.operators.resident import ResidentOperator

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def account(actor: Any) -> dict[str, Any]:
    """Runs in the actor."""
    import os

    import threadpoolctl
    import zarr

    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return {
        "environment": {
            k: v for k, v in os.environ.items() if k.startswith(("JAX_", "XLA_", "CUDA_")) or k.endswith("_THREADS")
        },
        "zarr": zarr.config.get("threading.max_workers"),
        "blas": [library["num_threads"] for library in threadpoolctl.threadpool_info()],
        "xla": sum(name.startswith("tf_XLAEigen") for name in names),
        "threads": len(names),
    }


def everyone(folder: Path, gpus: int, pool: WorkerPool) -> dict[str, dict[str, Any]]:
    """What one actor of each kind says, with a GPU for those that take one where there are any."""
    data = load_dataset("digits")
    x, net = data.x[:32].astype(np.float32) / 255 - 0.5, network("mlp-2")
    said: dict[str, dict[str, Any]] = {}
    store = build_gram(net, x, store=folder / "a.zarr", tile=16, workers=1, pool=pool)
    said["gram"] = ray.get(pool._resting[-1].actor.__ray_call__.remote(account), timeout=60)
    pool.close()
    evaluators = ActorPool(EvaluationWorker, EvaluationError)
    with evaluators.job(net.spec, ray.put(x), 16, keep=False):
        number = evaluators.start(gpu=gpus > 0)
        assert evaluators.poll(120.0), "it is not ready"
        actor = evaluators._members[number].actor
        said["evaluation"] = ray.get(actor.__ray_call__.remote(account), timeout=60)
    with ResidentOperator(store, holders=1) as operator:
        operator.matmat(np.ones((32, 2)))
        (member,) = operator._pool._members.values()
        said["holder"] = ray.get(member.actor.__ray_call__.remote(account), timeout=60)
        said["holder"]["holds"] = operator._placements[0].threads
    return said


def test_actors_keep_to_what_they_hold(pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # of the driver: no business of its workers
    for kind, said in everyone(tmp_path, 0, pool).items():
        holds = said.get("holds", 1)
        assert said["environment"]["JAX_PLATFORMS"] == "cpu", kind
        assert said["environment"]["CUDA_VISIBLE_DEVICES"] == "", kind
        assert said["zarr"] == holds, kind
        assert said["blas"], kind
        assert max(said["blas"]) <= holds, (kind, said)
        assert said["xla"] <= holds, (kind, said)


@pytest.mark.slow
def test_only_the_gpu_that_is_owned(tmp_path: Path) -> None:
    """Ray believes in two GPUs here; an actor that takes one sees one, and a holder none."""
    said = _on_two_gpus(tmp_path)
    for kind in ("gram", "evaluation"):
        assert said[kind]["environment"]["CUDA_VISIBLE_DEVICES"] in ("0", "1")
        assert "JAX_PLATFORMS" not in said[kind]["environment"]
    assert said["holder"]["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert said["holder"]["environment"]["JAX_PLATFORMS"] == "cpu"


def _on_two_gpus(folder: Path) -> dict[str, Any]:
    program = (
        "import json, sys, ray; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "import test_live_actors as here\n"
        "ray.init('local', num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)\n"
        "print(json.dumps(here.everyone(Path(sys.argv[2]), 1, here.WorkerPool())))"
    )
    words = [sys.executable, "-c", program, str(Path(__file__).parent), str(folder)]
    environment = os.environ | {FAKE_GPUS: "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=250, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
