from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import advntk_dist.gram.plan as plan_module
from advntk_dist.errors import RequestError
from advntk_dist.gram.build import build_gram
from advntk_dist.gram.fingerprint import make_fingerprint
from advntk_dist.gram.plan import GramPlan, free_disk, free_memory, plan_gram
from advntk_dist.gram.worker import Receipt, WorkerPool
from advntk_dist.networks import Network


def test_plan_counts_what_is_stored(fill: Any) -> None:
    store = fill(kinds=("ntk", "nngp"))
    plan = plan_gram(store.fingerprint, workers=2)
    assert (plan.tiles, plan.tiles_total) == (10, 10)
    assert plan.pairs == store.grid.pairs
    on_disk = sum(p.stat().st_blocks * 512 for p in store.path.rglob("*") if p.is_file())
    assert on_disk <= plan.disk_bytes
    half = plan_gram(store.fingerprint, workers=2, missing=list(store.grid)[:3])
    assert (half.tiles, half.tiles_total) == (3, 10)
    assert 0.25 * plan.disk_bytes < half.disk_bytes < 0.5 * plan.disk_bytes


def test_plan_of_the_whole_of_cifar10(net: Network) -> None:
    fingerprint = make_fingerprint(net, np.zeros((1, 32, 32, 3), np.uint8), tile=2048)
    plan = plan_gram({**fingerprint, "n": 50_000, "n_columns": 50_000, "gram.tile": 2048}, workers=2)
    assert plan.tiles == 25 * 26 // 2
    assert 5.4e9 < plan.disk_bytes < 5.5e9
    assert plan.image_bytes == 50_000 * 3072 * 4
    assert plan.memory_bytes < 24 * 2**30
    assert "325 of 325 tiles" in str(plan)
    assert "time not measured yet" in str(plan)
    assert "about 75 s" in str(replace(plan, seconds=75.2))


def test_too_little_disk_or_memory_is_refused_before_the_first_tile(
    no_ray: None, net: Network, images: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(plan_module, "free_disk", lambda path: 10_000)
        with pytest.raises(RequestError, match=r"needs .* MiB more on disk, .* are free") as caught:
            build_gram(net, images, store=tmp_path / "a.zarr", tile=8)
    assert caught.value.exit_code == 2
    monkeypatch.setattr(plan_module, "free_memory", lambda: 10**9)
    with pytest.raises(RequestError, match=r"needs .* GiB of memory .* smaller gram\.tile") as caught:
        build_gram(net, images, store=tmp_path / "a.zarr", tile=8)
    assert caught.value.exit_code == 2


def test_free_space_is_that_of_the_machine(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "not" / "yet" / "there") == pytest.approx(free_disk(tmp_path), rel=0.05)
    assert 2**20 < free_memory() < 2**50


def test_measured_memory_stays_within_the_plan(pool: WorkerPool, net: Network, tmp_path: Path) -> None:
    """Tiles as large as in real work, so that they weigh against the fixed cost of a worker."""
    x = np.random.default_rng(0).integers(0, 256, (3000, 32, 32, 3), dtype=np.uint8)
    plans: list[GramPlan] = []
    receipts: list[Receipt | None] = []
    store = build_gram(
        net, x, store=tmp_path / "a.zarr", tile=1500, kinds=("ntk", "nngp"), workers=1, pool=pool,
        on_plan=plans.append, on_progress=lambda done, total, receipt: receipts.append(receipt),
    )  # fmt: skip
    (plan,) = plans
    assert (plan.tiles, plan.workers) == (3, 1)
    assert plan.seconds is not None
    assert 0.01 < plan.seconds < 60
    peak = max(r.peak_bytes for r in receipts if r is not None)
    assert peak <= plan.worker_bytes + plan.image_bytes
    assert peak >= 0.2 * (plan.worker_bytes + plan.image_bytes), "a plan that is far too high refuses work for nothing"
    store.require_complete()
