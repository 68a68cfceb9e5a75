"""Solve out of core within a budget, and print what memory it took as JSON; run in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from pathlib import Path

import numpy as np

from advntk_dist.dynamics import ATDynamics
from advntk_dist.gram.store import GramStore
from advntk_dist.operators import TiledOperator, operator_for_store

K, M = 10, 16


def status(field: str) -> int:
    """A field of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def work(path: Path, memory: int, scratch: Path, scale: float) -> dict[str, float]:
    """A trajectory, its limit, and a loss with its gradient."""
    store = GramStore.open(path)
    operator = operator_for_store(store, memory=memory, operator="threads", threads=2)
    assert type(operator) is TiledOperator, operator.description
    rng = np.random.default_rng(0)
    y = np.eye(K)[rng.integers(0, K, store.n)]
    dynamics = ATDynamics(operator, y, memory=memory, scratch=scratch, ridge=1.0)
    varpi = scale * rng.uniform(0.5, 2.0, store.n)
    solutions = dynamics.trajectory(varpi, [1e-2, 1.0, np.inf], tol=1e-6)
    k_val = rng.standard_normal((M, store.n)) / store.n
    loss, gradient = dynamics.loss_and_gradient(varpi, k_val, np.eye(K)[rng.integers(0, K, M)], tol=1e-6)
    assert dynamics._last is not None
    basis = dynamics._last.basis
    assert basis is not None
    return {
        "spilled": basis.q.budget.spilled_bytes,
        "columns": basis.q.m,
        "rank": dynamics.plan.rank,
        "loss": loss,
        "gradient": float(np.linalg.norm(gradient)),
        "norms": float(sum(np.linalg.norm(s.value) for s in solutions)),
        "folders": len(list(scratch.glob("krylov-*"))),
    }


def main(small: Path, large: Path, memory: int, scratch: Path, scale: float) -> None:
    """Warm everything up on a small store, then measure the peak on the large one."""
    work(small, memory, scratch, scale)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for reuse would hide the same amount of the peak
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    answer = work(large, memory, scratch, scale)
    print(json.dumps(answer | {"peak": status("VmHWM") - before, "left": len(list(scratch.glob("krylov-*")))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), float(sys.argv[5]))
