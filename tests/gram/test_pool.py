"""Workers that stay from one build to the next."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from numpy.typing import NDArray
from ray.exceptions import NodeDiedError

from advntk_dist.distributed import pool as pool_module
from advntk_dist.distributed import session
from advntk_dist.distributed.pool import Reservation, _Member
from advntk_dist.distributed.worker import WorkerInfo, worker_environment
from advntk_dist.errors import RequestError
from advntk_dist.gram.build import build_gram
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.verify import verify_gram
from advntk_dist.gram.view import dask_view
from advntk_dist.gram.worker import Receipt, WorkerPool
from advntk_dist.networks import Network, network
from tests.waiting import wait_until

TILE = 8


class Builds:
    """Builds by one worker of a pool, which process it was, and what was said."""

    def __init__(self, folder: Path, pool: WorkerPool) -> None:
        self.folder, self.pool = folder, pool
        self.pids: list[int] = []
        self.events: list[dict[str, Any]] = []

    def __call__(self, name: str, net: Network, x: NDArray[Any], **keywords: Any) -> GramStore:
        pids: set[int] = set()

        def progress(done: int, total: int, receipt: Receipt | None) -> None:
            if receipt is not None:
                pids.add(receipt.pid)

        wanted = {"tile": TILE, "workers": 1} | keywords
        store = build_gram(
            net, x, store=self.folder / name, pool=self.pool, on_progress=progress, on_event=self.events.append,
            **wanted,
        )  # fmt: skip
        assert verify_gram(store).ok
        self.pids += pids
        return store


@pytest.fixture
def builds(pool: WorkerPool, tmp_path: Path) -> Builds:
    return Builds(tmp_path, pool)


def _tiles(store: GramStore) -> dict[tuple[int, int], bytes]:
    return {(t.i, t.j): store.chunk_path(kind, t.i, t.j).read_bytes() for kind in store.kinds for t in store.grid}


def test_one_worker_builds_one_store_after_another(builds: Builds, net: Network, images: NDArray[np.uint8]) -> None:
    """The same bits as from a new one; and other images, tiles, kinds, columns or another network are no trouble."""
    builds.pool.close()
    fresh = builds("fresh", net, images)
    assert _tiles(builds("again", net, images)) == _tiles(fresh)
    other = builds("other", net, images[::-1], tile=5)
    np.testing.assert_allclose(np.asarray(dask_view(other)), np.asarray(dask_view(fresh))[::-1, ::-1], rtol=2e-6)
    deep, wide = network("mlp-3", W_std=1.5), np.random.default_rng(1).integers(0, 256, (20, 5, 5, 1), dtype=np.uint8)
    both = builds("both", deep, wide, dtype="float64", kinds=("ntk", "nngp"), columns=wide[4:])
    x = wide / 255.0 - 0.5
    np.testing.assert_allclose(np.asarray(dask_view(both, "ntk")), deep.ntk(x, x[4:]), rtol=1e-7)
    np.testing.assert_allclose(np.asarray(dask_view(both, "nngp")), deep.nngp(x, x[4:]), rtol=1e-7)
    assert _tiles(builds("last", net, images)) == _tiles(fresh)
    assert len(builds.pids) == 5
    assert len(set(builds.pids)) == 1
    assert [e["worker"] for e in builds.events if e["event"] == "worker_started"] == [0] * 5, "numbered in each build"
    builds.pool.close()
    wait_until(lambda: not psutil.pid_exists(builds.pids[0]), why="it outlives the pool")
    wait_until(lambda: ray.available_resources().get("CPU") == 2, why="its core is not free")


def test_a_worker_that_dies_at_rest_is_replaced(builds: Builds, net: Network, images: NDArray[np.uint8]) -> None:
    builds("a", net, images)
    (pid,) = builds.pids
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid))
    builds.events.clear()
    builds("b", net, images)
    (lost,) = [e for e in builds.events if e["event"] == "worker_lost"]
    assert (lost["tiles"], lost["was_ready"]) == ([], False)
    assert builds.pids[1] != pid


def _member(
    actor: Any, gpu: bool = False, environment: dict[str, str] | None = None, info: WorkerInfo | None = None
) -> _Member:
    return _Member(actor, Reservation(gpu=gpu), environment or worker_environment(1, gpu), info)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Actors that would be killed."""
    actors: list[Any] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "kill", lambda actor, no_restart: actors.append(actor))
    return actors


class Actor:
    """Stands for an actor that is asked to rest: what it answers, or None while it hangs."""

    def __init__(self, answer: str | Exception | None = "at rest") -> None:
        self.answer = answer
        self.rest = SimpleNamespace(remote=lambda: self)


@pytest.mark.parametrize("keep", [True, False])
def test_only_workers_that_are_idle_and_well_are_kept(
    keep: bool, killed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(asked: list[Actor], num_returns: int, timeout: float) -> tuple[list[Actor], list[Actor]]:
        return [a for a in asked if a.answer is not None], [a for a in asked if a.answer is None]

    def get(asked: Actor) -> object:
        if isinstance(asked.answer, Exception):
            raise asked.answer
        return asked.answer

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", get)
    idle, busy, starting, hung, dead = Actor(), Actor(), Actor(), Actor(None), Actor(NodeDiedError(""))
    ready = WorkerInfo(1, "node", "here", "cpu")
    pool = WorkerPool()

    def interrupted() -> None:
        for number, actor in enumerate((idle, busy, starting, hung, dead)):
            pool._members[number] = _member(actor, info=None if actor is starting else ready)
        pool._members[1].keys["a tile"] = (0, 0)
        pool._members[2].keys["its readiness"] = None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), pool.job("its arguments", keep=keep):
        interrupted()
    kept = [idle] if keep else []
    assert [member.actor for member in pool._resting] == kept
    assert {id(actor) for actor in killed} == {id(a) for a in (idle, busy, starting, hung, dead) if a not in kept}
    assert pool.ready == []


@pytest.mark.parametrize("what", ["PYTHONPATH", "AWS_ENDPOINT_URL", "ADVNTK_STORE_PATIENCE"])
def test_a_worker_of_another_environment_is_not_kept(
    what: str, killed: list[Any], net: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, of_a_core, of_a_gpu = WorkerPool(), worker_environment(1, False), worker_environment(1, True)
    pool._resting = [_member("a", False, of_a_core), _member("b", True, of_a_core), _member("c", True, of_a_gpu)]
    with pool.job(net.spec):
        assert killed == ["b"]
    if what == "PYTHONPATH":
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.setenv(what, "7")
    with pool.job(net.spec):
        assert killed == ["b", "a", "c"]
    assert not pool._resting


def test_workers_of_the_other_kind_make_way(killed: list[Any], net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is to have the cluster's GPU would wait for their cores for ever."""

    def refuse(actor_class: type) -> Any:
        raise AssertionError("a new one is started")

    monkeypatch.setattr(ray, "remote", refuse)
    pool = WorkerPool()
    pool._resting = [_member(name) for name in ("a", "b")]
    with pool.job(net.spec), pytest.raises(AssertionError, match="a new one is started"):
        pool.start(gpu=True)
    assert killed == ["a", "b"]


def test_a_pool_is_of_one_build_and_of_one_cluster(
    no_ray: None, net: Network, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    pool = WorkerPool()
    refused = pytest.raises(RequestError, match="pool: another build is using it")
    with pool.job(net.spec), refused, pool.job(net.spec):
        pytest.fail("it has one")
    with pool.job(net.spec):
        pass
    with pytest.raises(RequestError, match="address: give it to the pool"):
        build_gram(net, images, store=tmp_path / "a", pool=pool, address="127.0.0.1:1")


class Rays:
    """The Ray of this process, which a pool and others start and stop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started, self.now = 0, ""
        monkeypatch.setattr(pool_module, "_driver", lambda: self.now or None)
        monkeypatch.setattr(session, "have_ray", self.have)
        monkeypatch.setattr(session, "stop_ray", self.stop)

    def have(self, address: str | None, image_bytes: int) -> bool:  # noqa: ARG002 - what is replaced
        if self.now:
            return False
        self.started += 1
        self.now = f"driver {self.started}"
        return True

    def stop(self) -> None:
        self.now = ""


def test_ray_is_stopped_where_it_was_started(killed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rays = Rays(monkeypatch)
    with WorkerPool() as pool:
        pool.close()
        assert rays.started == 0
        pool.connect(10)
        pool.connect(20)
        assert (rays.started, pool.grows) == (1, False)
        pool._resting = [_member("a")]
    assert (rays.now, killed) == ("", ["a"])
    rays.have(None, 0)  # somebody else's
    with pool:
        pool.connect()
        assert pool.grows
    assert rays.now == "driver 2"


def test_a_ray_that_others_have_stopped_takes_its_workers_along(
    killed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rays, pool = Rays(monkeypatch), WorkerPool()
    for again in (False, True):
        pool.connect()
        pool._resting = [_member("a")]
        rays.stop()
        rays.have(None, 0)  # somebody else's
        if again:
            pool.connect()
            assert not pool._resting
        pool.close()
        assert rays.now, "it is not the pool's to stop"
        rays.stop()
    assert killed == []
