from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from ray.util import placement_group, remove_placement_group

from advntk_dist.errors import (
    DatasetError,
    GramBuildError,
    NetworkError,
    RequestError,
    StoreBusyError,
    StoreMismatchError,
)
from advntk_dist.gram.build import build_gram
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.verify import verify_gram
from advntk_dist.gram.view import dask_view
from advntk_dist.gram.worker import Receipt, WorkerPool
from advntk_dist.networks import Network, network
from advntk_dist.storage.locks import builder_lock
from advntk_dist.storage.paths import local
from tests.waiting import wait_until

TILE = 8


class Watch:
    """Collects what a build reports."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []
        self.events: list[dict[str, Any]] = []
        self.done: list[int] = []

    def progress(self, done: int, total: int, receipt: Receipt | None) -> None:
        assert total == 10
        self.done.append(done)
        if receipt is not None:
            self.receipts.append(receipt)

    @property
    def places(self) -> list[tuple[int, int]]:
        return sorted((r.i, r.j) for r in self.receipts)


def _chunk_hashes(store: GramStore) -> dict[str, str]:
    return {
        str(p.relative_to(local(store.path))): hashlib.sha256(p.read_bytes()).hexdigest()
        for kind in store.kinds
        for p in (local(store.path) / kind).rglob("*")
        if p.is_file()
    }


USER_NETWORK = """
import jax.numpy as jnp

def spoilt():
    def kernel_fn(x1, x2, get):
        a, b = x1.reshape(len(x1), -1), x2.reshape(len(x2), -1)
        # A bright first pixel makes the kernel of an image not finite.
        return a @ b.T / (a[:, :1] < 0.49)
    return lambda: None, lambda: None, kernel_fn
"""


def test_user_network_whose_kernel_is_not_finite_fails_fast(
    pool: WorkerPool, images: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "user_networks.py").write_text(USER_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    net = network("user_networks:spoilt")
    x = np.minimum(images, 200)
    x[13, 0, 0, 0] = 255
    events: list[dict[str, Any]] = []
    with pytest.raises(GramBuildError, match=r"tile \(1, [123]\) of ntk: the kernel is not finite for image 13;") as e:
        build_gram(net, x, store=tmp_path / "a.zarr", tile=TILE, workers=1, pool=pool, on_event=events.append)
    assert "\n" not in str(e.value)
    assert not [e for e in events if e["event"] == "tile_again"], "trying again would not help"
    assert 0 < int(GramStore.open(tmp_path / "a.zarr").committed().sum()) < 10


def test_network_that_workers_cannot_import_fails_fast(
    pool: WorkerPool, images: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    (tmp_path / "hidden_networks.py").write_text(USER_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    net = network("hidden_networks:spoilt")
    monkeypatch.setattr("advntk_dist.distributed.worker.import_path", lambda: "")
    with pytest.raises(NetworkError, match=r"a worker on .* cannot start: network\.name: .*hidden_networks"):
        build_gram(net, images, store=tmp_path / "a.zarr", tile=TILE, workers=1, pool=pool)


def test_fresh_build_of_both_kinds(pool: WorkerPool, net: Network, images: NDArray, tmp_path: Path) -> None:
    watch = Watch()
    store = build_gram(
        net, images, store=tmp_path / "a.zarr", tile=TILE, dtype="float64", kinds=("nngp", "ntk"), workers=1,
        pool=pool, on_progress=watch.progress, on_event=watch.events.append,
    )  # fmt: skip
    assert store.kinds == ("ntk", "nngp")
    assert verify_gram(store).ok
    assert watch.done == list(range(11))
    assert watch.places == [(t.i, t.j) for t in store.grid]
    assert {r.attempt for r in watch.receipts} == {1}
    assert not [e for e in watch.events if e["event"] in ("worker_lost", "tile_again")]
    x = images / 255.0 - 0.5
    np.testing.assert_allclose(np.asarray(dask_view(store, "ntk")), net.ntk(x, x), rtol=1e-7)
    np.testing.assert_allclose(np.asarray(dask_view(store, "nngp")), net.nngp(x, x), rtol=1e-7)


def test_only_missing_and_damaged_tiles_are_computed(
    pool: WorkerPool, fill: Any, net: Network, images: NDArray, tmp_path: Path
) -> None:
    undisturbed = _chunk_hashes(fill("undisturbed.zarr"))
    store = fill(places=[(0, 0), (0, 1), (1, 1), (1, 2), (2, 3), (3, 3)])
    partial = store.path / "ntk" / "c" / "0" / "2.0123.partial"
    partial.write_bytes(b"half a chunk")
    flipped = store.chunk_path("ntk", 0, 1)
    flipped.write_bytes(flipped.read_bytes()[:-9] + b"\0" + flipped.read_bytes()[-8:])
    store.chunk_path("ntk", 1, 1).unlink()
    (store.path / "commits" / "ntk" / "c" / "2" / "3" / "0").write_bytes(b"")
    assert len(verify_gram(store).damaged) == 3
    watch = Watch()
    built = build_gram(net, images, store=store.path, tile=TILE, workers=1, pool=pool, on_progress=watch.progress)
    built.require_complete()
    assert watch.places == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 3), (2, 2), (2, 3)]
    assert watch.done[0] == 3
    assert verify_gram(store).ok
    assert not partial.exists()
    assert _chunk_hashes(store) == undisturbed


def test_complete_store_needs_no_ray(no_ray: None, fill: Any, net: Network, images: NDArray[np.uint8]) -> None:
    store = fill()
    watch = Watch()
    before = {p: p.stat().st_mtime_ns for p in store.path.rglob("*")}
    build_gram(net, images, store=store.path, tile=TILE, on_progress=watch.progress).require_complete()
    assert watch.done == [10]
    assert {p: p.stat().st_mtime_ns for p in store.path.rglob("*")} == before


def test_incomplete_store_would_need_ray(no_ray: None, fill: Any, net: Network, images: NDArray[np.uint8]) -> None:
    with pytest.raises(AssertionError, match="must not start Ray"):
        build_gram(net, images, store=fill(places=[(0, 0)]).path, tile=TILE)


def test_killed_worker_is_replaced(
    pool: WorkerPool, fill: Any, net: Network, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    killed: list[int] = []
    events: list[dict[str, Any]] = []
    receipts: list[Receipt] = []

    def kill_the_first(done: int, total: int, receipt: Receipt | None) -> None:
        if receipt is not None:
            receipts.append(receipt)
            if not killed:
                killed.append(receipt.pid)
                os.kill(receipt.pid, signal.SIGKILL)

    store = build_gram(
        net, images, store=tmp_path / "a.zarr", tile=3, workers=1, pool=pool, on_progress=kill_the_first,
        on_event=events.append,
    )  # fmt: skip
    assert verify_gram(store).ok
    lost = [e for e in events if e["event"] == "worker_lost"]
    assert len(lost) == 1
    assert lost[0]["tiles"]
    assert len({r.pid for r in receipts}) == 2
    assert len({(r.i, r.j) for r in receipts}) == len(receipts) == len(store.grid)
    assert _chunk_hashes(store) == _chunk_hashes(fill("b.zarr", tile=3))


@pytest.fixture
def one_core(ray_cluster: None) -> Iterator[None]:
    """One core of the cluster's two is somebody else's."""
    group = placement_group([{"CPU": 1}])
    assert group.wait(60)
    yield
    remove_placement_group(group)


def test_stopped_worker_is_replaced(
    one_core: None, pool: WorkerPool, net: Network, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    stopped: list[int] = []
    events: list[dict[str, Any]] = []

    def stop_the_first(done: int, total: int, receipt: Receipt | None) -> None:
        if receipt is not None and not stopped:
            stopped.append(receipt.pid)
            os.kill(receipt.pid, signal.SIGSTOP)

    # It has the only core, so the replacement only starts if the stopped process is really gone.
    store = build_gram(
        net, images, store=tmp_path / "a.zarr", tile=3, pool=pool, workers=1, on_progress=stop_the_first,
        on_event=events.append, deadline=3.0,
    )  # fmt: skip
    assert verify_gram(store).ok
    assert {e["reason"] for e in events if e["event"] == "worker_lost"} == {"no result for 3 s"}
    wait_until(lambda: not psutil.pid_exists(stopped[0]))


def test_image_that_is_not_finite_fails_before_the_first_tile(no_ray: None, net: Network, tmp_path: Path) -> None:
    x = np.zeros((27, 4, 4, 1), np.float32)
    x[19, 1, 1, 0] = np.nan
    with pytest.raises(GramBuildError, match=r"image 19: not finite.*row and column 2;"):
        build_gram(net, x, store=tmp_path / "a.zarr", tile=TILE)
    assert not (tmp_path / "a.zarr").exists()


def test_wrong_requests(no_ray: None, net: Network, images: NDArray[np.uint8], tmp_path: Path) -> None:
    where = tmp_path / "a.zarr"
    with pytest.raises(RequestError, match=r"gram\.tile is 0"):
        build_gram(net, images, store=where, tile=0)
    with pytest.raises(RequestError, match="workers is 0"):
        build_gram(net, images, store=where, workers=0)
    with pytest.raises(RequestError, match=r"\(n, H, W, C\)"):
        build_gram(net, images[0], store=where)
    with pytest.raises(DatasetError, match=r"\[-0.5, 0.5\]"):
        build_gram(net, images.astype(np.float32), store=where)
    assert not where.exists()


def test_store_of_another_configuration(no_ray: None, fill: Any, images: NDArray[np.uint8]) -> None:
    with pytest.raises(StoreMismatchError, match=r"network\.name"):
        build_gram(network("mlp-3"), images, store=fill(places=[]).path, tile=TILE)


def test_second_builder_is_refused_at_once(
    no_ray: None, net: Network, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    with builder_lock(tmp_path / "a.zarr"), pytest.raises(StoreBusyError):
        build_gram(net, images, store=tmp_path / "a.zarr", tile=TILE)
