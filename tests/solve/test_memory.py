"""solver.memory is a bound: planned before work starts, and kept, as measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from advntk_dist.dynamics import ATDynamics
from advntk_dist.errors import RequestError
from advntk_dist.gram.fingerprint import make_fingerprint
from advntk_dist.gram.store import GramStore
from advntk_dist.networks import network
from advntk_dist.operators import InMemoryOperator, TiledOperator
from advntk_dist.operators.tiles import ArrayTiles
from advntk_dist.solve.memory_budget import MAX_RANK, plan_solver

MIB = 2**20
CONSTANT = 8 * MIB
"""What a solve may take beyond solver.memory: allocators, zarr's own threads, JSON."""

N, K = 4000, 10


def _store(path: Path, n: int) -> GramStore:
    """A store of a kernel-like matrix: decaying directions over a small multiple of the identity."""
    images = np.random.default_rng(0).integers(0, 256, (n, 2, 2, 1), dtype=np.uint8)
    fingerprint = make_fingerprint(network("mlp-2"), images, tile=256, dtype="float32", kinds=("ntk",))
    store = GramStore.create_or_open(path, fingerprint, {})
    features = np.random.default_rng(1).standard_normal((n, 150)) * 0.93 ** np.arange(150)
    for t in store.grid:
        values = features[t.rows] @ features[t.cols].T
        if t.on_diagonal:
            values += 0.5 * np.eye(len(values))
        store.write_tile("ntk", t, values.astype(np.float32))
    return store


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_is_within_the_budget_with_a_matrix_four_times_as_large(tmp_path: Path) -> None:
    budget = 14 * MIB
    _store(tmp_path / "small.zarr", 600)
    large = _store(tmp_path / "large.zarr", N)
    assert large.n**2 * 4 > 4 * budget
    arguments = [tmp_path / "small.zarr", tmp_path / "large.zarr", budget, tmp_path / "scratch", 1.0]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("memory_driver.py")), *map(str, arguments)],
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["spilled"] > 0
    assert answer["folders"] >= 1
    assert answer["left"] == 0
    assert answer["peak"] <= budget + CONSTANT, answer
    assert answer["peak"] > 0.3 * budget, "a peak that is far below the plan would mean that nothing was measured"


def test_out_of_core_and_in_memory_agree(tmp_path: Path) -> None:
    n, k, m = 2500, 10, 20
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n, 300)) * 0.97 ** np.arange(300)
    theta = features @ features.T + 0.01 * np.eye(n)
    y, varpi = np.eye(k)[rng.integers(0, k, n)], rng.uniform(0.02, 0.2, n)
    k_val, y_val = rng.standard_normal((m, n)) @ theta / n, np.eye(k)[rng.integers(0, k, m)]
    plenty = ATDynamics(theta, y)
    operator = TiledOperator(ArrayTiles(theta, 256))
    little = ATDynamics(operator, y, memory=_least(operator, k) + 8 * MIB, scratch=tmp_path)
    for ours, theirs in zip(
        little.trajectory(varpi, [0.01, 1.0], 1e-9), plenty.trajectory(varpi, [0.01, 1.0], 1e-9), strict=True
    ):
        assert ours.passes == theirs.passes
        np.testing.assert_allclose(ours.value, theirs.value, atol=1e-11 * np.abs(theirs.value).max())
    assert any(tmp_path.iterdir()), "the basis went to disk"
    (loss, gradient), (expected, reference) = (d.loss_and_gradient(varpi, k_val, y_val) for d in (little, plenty))
    assert loss == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(gradient, reference, atol=1e-8 * np.abs(reference).max())
    del little
    assert not any(tmp_path.iterdir())


def _least(operator: TiledOperator, k: int) -> int:
    """The least memory that the plan takes, by bisection."""
    low, high = 0, 2**40
    while high - low > 1:
        middle = (low + high) // 2
        try:
            plan_solver(operator, k, middle)
            high = middle
        except RequestError:
            low = middle
    return high


def test_too_little_memory_is_refused_before_any_pass_and_enough_is_said() -> None:
    operator = TiledOperator(ArrayTiles(np.eye(200), 64))
    with pytest.raises(RequestError, match=r"solver\.memory.*n = 200 and 4 classes.*raise it to") as caught:
        ATDynamics(operator, np.ones((200, 4)), memory=1000)
    assert operator.passes == 0
    said = float(str(caught.value).rsplit("raise it to ", 1)[1].split(" MiB")[0])
    assert said * MIB == pytest.approx(_least(operator, 4), abs=0.06 * MIB)


def test_the_plan_divides_the_memory() -> None:
    operator = TiledOperator(ArrayTiles(np.eye(3000, dtype=np.float32), 1000))
    for memory in (40 * MIB, 100 * MIB, 10**10):
        plan = plan_solver(operator, K, memory)
        assert plan.basis is not None
        assert plan.held + plan.fixed + 2 * plan.basis <= memory
        assert plan.description.startswith("solver memory")
    ranks = [plan_solver(operator, K, memory).rank for memory in (40 * MIB, 100 * MIB, 10**10)]
    assert ranks[0] < ranks[1] < ranks[2] == MAX_RANK
    assert plan_solver(operator, K, None).basis is None
    assert "no limit" in plan_solver(operator, K, None).description


def test_a_matrix_in_memory_counts() -> None:
    operator = InMemoryOperator(np.eye(500))
    assert plan_solver(operator, 2, 50 * MIB).held == 8 * 500**2
    with pytest.raises(RequestError, match=r"in memory \(500 x 500"):
        plan_solver(operator, 2, 8 * 500**2)
