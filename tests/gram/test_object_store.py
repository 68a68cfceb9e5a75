"""Gram stores in an object store: the same bytes as on a disk, through faults, and resumable after them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from advntk_dist.errors import (
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreIncompleteError,
    StoreUnreachableError,
)
from advntk_dist.gram.build import build_gram, open_for_build
from advntk_dist.gram.fingerprint import make_fingerprint
from advntk_dist.gram.layout import is_absent
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.verify import invalidate, verify_gram
from advntk_dist.gram.view import dask_view, open_gram
from advntk_dist.gram.worker import WorkerPool
from advntk_dist.networks import Network
from advntk_dist.operators.tiled import TiledOperator
from advntk_dist.storage import durable
from advntk_dist.storage.locks import builder_lock
from advntk_dist.storage.paths import ObjectPath
from tests.conftest import BOTH, FaultProxy, fault_proxy
from tests.filled import fill_store

TILE = 8


@pytest.fixture(scope="module")
def proxy(s3_server: int) -> Iterator[FaultProxy]:
    with fault_proxy(s3_server) as proxy:
        yield proxy


@pytest.fixture
def s3(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    """As everywhere, but one for all, and with one patience: the workers of a build serve for the next one, too."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("GOOGLE_BASE_URL", proxy.url)
    monkeypatch.setenv("ADVNTK_STORE_PATIENCE", "4")
    monkeypatch.setenv("ADVNTK_STORE_TIMEOUT", "5")
    proxy.fault, proxy.out, proxy.google = lambda method, path: None, False, False
    return proxy


@pytest.fixture
def gs(s3: FaultProxy) -> FaultProxy:
    s3.google = True
    return s3


@pytest.fixture
def place(place: ObjectPath) -> ObjectPath:
    return place / "gram.zarr"


Stock = Callable[..., GramStore]


@pytest.fixture
def stock(place: ObjectPath, net: Network, images: NDArray[np.uint8]) -> Stock:
    """Make, or open for a build, the store of the first n images, and compute the given tiles in this process."""

    def make(n: int = len(images), places: Iterable[tuple[int, int]] | None = None) -> GramStore:
        x = images[:n]
        fingerprint = make_fingerprint(net, x, tile=TILE, dtype="float32", kinds=("ntk",))
        store = open_for_build(place, fingerprint, net.spec.as_dict(), x)
        list(fill_store(store, net, x, places=places))
        return store

    return make


def array_of(store: GramStore) -> zarr.Array[Any]:
    array = store.arrays()["ntk"]
    assert isinstance(array, zarr.Array)
    return array


def chunks_of(store: GramStore) -> dict[tuple[int, int], bytes]:
    return {(t.i, t.j): store.chunk_path("ntk", t.i, t.j).read_bytes() for t in store.grid}


@BOTH
def test_build_through_faults_equals_the_local_one(
    pool: WorkerPool, s3: FaultProxy, place: ObjectPath, fill: Any, net: Network, images: NDArray[np.uint8]
) -> None:
    turns, kinds = itertools.count(1), itertools.cycle(["500", "503", "drop", "cut", "short"])

    def fault(method: str, path: str) -> str | None:
        if next(turns) % 9:
            return None
        kind = next(kinds)
        # A short body counts as whole where no checksum of ours says otherwise.
        return kind if kind != "short" or (method == "GET" and "/ntk/c/" in path) else "500"

    s3.fault = fault
    events: list[dict[str, Any]] = []
    store = build_gram(net, images, store=str(place), tile=TILE, workers=2, pool=pool, on_event=events.append)
    s3.fault = lambda method, path: None
    assert store.path == place
    store.require_complete()
    assert chunks_of(store) == chunks_of(fill())
    assert not [e for e in events if e["event"] == "worker_lost"]
    report = verify_gram(store)
    assert report.ok
    assert report.checked == len(store.grid) == 10
    assert not is_absent(place)
    assert [p.name for p in place.parent.iterdir()] == ["gram.zarr"], "no lock and no watch file is left"


def test_outage_ends_a_build_and_the_next_one_goes_on(
    pool: WorkerPool,
    s3: FaultProxy,
    place: ObjectPath,
    fill: Any,
    stock: Stock,
    net: Network,
    images: NDArray[np.uint8],
) -> None:
    stock(places=[(0, 0), (0, 1), (3, 3)])

    def fail(done: int, total: int, receipt: Any) -> None:
        s3.out = done >= 5

    with pytest.raises(StoreUnreachableError, match="run the same command again") as caught:
        build_gram(net, images, store=place, tile=TILE, workers=1, pool=pool, on_progress=fail)
    assert caught.value.exit_code == 3
    s3.out = False
    before = int(GramStore.open(place).committed().sum())
    assert before >= 5
    receipts: list[Any] = []
    store = build_gram(
        net, images, store=place, tile=TILE, workers=1, pool=pool,
        on_progress=lambda d, t, r: receipts.append(r) if r else None,
    )  # fmt: skip
    assert len(receipts) == 10 - before
    assert chunks_of(store) == chunks_of(fill())


@BOTH
def test_two_writers_with_other_last_bits_leave_one_sound_tile(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes between the chunk of the first and its commit, as a processor of another kind would."""
    store = stock(places=[(0, 1)])
    values, tile, met = store.read_tile("ntk", 0, 1), store.grid.at(0, 1), 0
    store.take_back("ntk", 0, 1)
    real = durable.write_durable

    def meet(*payload: Any, **keywords: Any) -> bool:
        nonlocal met
        met += 1
        if met == 2:
            store.write_tile("ntk", tile, values * np.float32(1 + 4e-7), attempt=2)
        return real(*payload, **keywords)

    monkeypatch.setattr(durable, "write_durable", meet)
    store.write_tile("ntk", tile, values)
    assert met == 4, "a chunk, refused, and two records"
    assert not verify_gram(store).damaged
    np.testing.assert_array_equal(store.read_tile("ntk", 0, 1), values)


@BOTH
def test_readers(stock: Stock, fill: Any, s3: FaultProxy, place: ObjectPath) -> None:
    store, here = stock(), fill()
    np.testing.assert_array_equal(np.asarray(open_gram(str(place))), np.asarray(dask_view(here)))
    np.testing.assert_array_equal(np.asarray(array_of(store)[:8, :8]), here.read_tile("ntk", 0, 0))
    v = np.random.default_rng(0).standard_normal((store.n, 3))
    operator = TiledOperator(GramStore.open(str(place)), threads=2)
    turns = itertools.count(1)
    s3.fault = lambda method, path: (
        "flip" if "/ntk/c/" in path and "commits" not in path and next(turns) % 4 == 0 else None
    )
    for _ in range(2):
        np.testing.assert_array_equal(operator.matmat(v), TiledOperator(here, threads=2).matmat(v))
    assert next(turns) > 20
    assert store.status().done == 10
    with pytest.raises(StoreIncompleteError, match="no Gram store here"):
        GramStore.open(f"{place}-not")


def test_damage_in_the_store_is_found_and_mended(stock: Stock, fill: Any) -> None:
    store = stock()
    path = store.chunk_path("ntk", 0, 2)
    payload = path.read_bytes()
    assert isinstance(path, ObjectPath)
    path.write_bytes(payload[:-9])
    with pytest.raises(StoreDamagedError, match=r"tile \(0, 2\) of ntk is damaged"):
        store.read_tile("ntk", 0, 2)
    path.unlink()
    with pytest.raises(StoreDamagedError, match="its chunk is missing"):
        store.read_tile("ntk", 0, 2)
    found = verify_gram(store).damaged
    assert [(d.i, d.j) for d in found] == [(0, 2)]
    invalidate(store, [d[:3] for d in found])
    with pytest.raises(StoreIncompleteError):
        store.require_complete()
    assert chunks_of(stock()) == chunks_of(fill())


@pytest.mark.parametrize(("scheme", "first"), [("gs", 16), ("s3", 20), ("s3", 5)], indirect=["scheme"])
def test_growth(stock: Stock, fill: Any, first: int) -> None:
    """From whole tiles, from a ragged edge, and from one tile that was smaller than asked for."""
    small = stock(first)
    small.require_complete()
    kept = {(0, 0), (0, 1), (1, 1)} if first > TILE else set()
    store = stock(places=[])
    assert {(int(i), int(j)) for i, j in np.argwhere(store.committed())} == kept
    assert array_of(store).shape == (27, 27)
    assert chunks_of(stock()) == chunks_of(fill())


def test_death_in_the_making_of_a_store(stock: Stock, place: ObjectPath, fill: Any) -> None:
    """Its description comes last; what lies there without one, old commits among it, is not believed."""
    stock(places=[(0, 0)])
    (place / "zarr.json").unlink()
    with pytest.raises(StoreIncompleteError):
        GramStore.open(place)
    assert not stock(places=[]).committed().any()
    assert chunks_of(stock()) == chunks_of(fill())


def test_something_else_at_the_place(stock: Stock, place: ObjectPath) -> None:
    (place / "notes.txt").write_bytes(b"mine")
    with pytest.raises(StoreError, match="not a Gram store"):
        stock()
    assert (place / "notes.txt").read_bytes() == b"mine"


def test_one_builder_at_a_time(place: ObjectPath, net: Network, images: NDArray[np.uint8]) -> None:
    with builder_lock(place), pytest.raises(StoreBusyError, match="another process is building this store"):
        build_gram(net, images, store=place, tile=TILE)
