"""The loop of a build against a pool without Ray, on a clock that the pool itself moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from advntk_dist.errors import GramBuildError
from advntk_dist.gram.ledger import TileLedger
from advntk_dist.gram.pool import Lost
from advntk_dist.gram.schedule import run_tiles
from advntk_dist.gram.worker import Failure, Receipt, WorkerInfo

PLACES = [(0, j) for j in range(20)]
Behaviour = Callable[["FakePool", int, tuple[int, int]], Any]


class FakePool:
    """Workers that take one second a tile; ``behaviour`` may answer otherwise, None meaning never."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.now = 0.0
        self.ready: list[int] = []
        self.starting: list[int] = []
        self.started = 0
        self.queues: dict[int, list[tuple[int, int]]] = {}
        self.killed: list[int] = []
        self.most_held = 0
        self.computed: list[tuple[int, int]] = []
        self.behaviour = behaviour

    def __len__(self) -> int:
        return len(self.ready) + len(self.starting)

    def start(self) -> int:
        self.starting.append(self.started)
        self.started += 1
        return self.started - 1

    def submit(self, worker: int, i: int, j: int, attempt: int) -> None:  # noqa: ARG002 - of the protocol
        assert worker in self.ready
        self.queues[worker].append((i, j))
        self.most_held = max(self.most_held, len(self.queues[worker]))

    def kill(self, worker: int) -> None:
        self.killed.append(worker)
        self.ready.remove(worker)

    def poll(self, timeout: float) -> list[tuple[int, Any]]:  # noqa: ARG002 - of the protocol
        self.now += 1.0
        events: list[tuple[int, Any]] = []
        for worker in list(self.ready):
            if not self.queues[worker]:
                continue
            place = self.queues[worker][0]
            outcome: Any = Receipt(*place, 1, 1.0, 0.0, 4, "here", worker, 0)
            if self.behaviour is not None:
                outcome = self.behaviour(self, worker, place) or outcome
            if outcome == "silent":
                continue
            self.queues[worker].pop(0)
            if isinstance(outcome, Lost):
                self.ready.remove(worker)
            elif isinstance(outcome, Receipt):
                self.computed.append(place)
            events.append((worker, outcome))
        for worker in self.starting:
            self.ready.append(worker)
            self.queues[worker] = []
            events.append((worker, WorkerInfo(worker, "node", "here", "cpu", 1.0)))
        self.starting = []
        return events


def _run(pool: FakePool, *, target: Callable[[], int] = lambda: 2, **keywords: Any) -> tuple[list[Any], list[Any]]:
    receipts: list[Receipt] = []
    events: list[dict[str, Any]] = []
    run_tiles(
        TileLedger(PLACES, **keywords),
        pool,
        target=target,
        on_receipt=receipts.append,
        on_event=events.append,
        clock=lambda: pool.now,
    )
    return receipts, events


def test_every_tile_once_with_two_in_hand_at_most() -> None:
    pool = FakePool()
    receipts, events = _run(pool)
    assert sorted(pool.computed) == PLACES
    assert len(receipts) == 20
    assert pool.most_held == 2
    assert pool.started == 2
    assert pool.now == 11, "two workers, a second a tile, and one for the start"
    assert {e["event"] for e in events} == {"worker_started", "worker_ready"}


def test_workers_that_join_get_work() -> None:
    pool = FakePool()
    _run(pool, target=lambda: 1 if pool.now < 4 else 5)
    assert pool.started == 5
    assert sorted(pool.computed) == PLACES
    assert pool.now < 14


def test_slow_worker_holds_nobody_up_and_its_last_tile_is_duplicated() -> None:
    def slow(pool: FakePool, worker: int, place: tuple[int, int]) -> Any:
        return "silent" if worker == 0 and pool.now < 500 else None

    pool = FakePool(slow)
    receipts, events = _run(pool)
    assert pool.now < 30
    assert sorted({(r.i, r.j) for r in receipts}) == PLACES
    assert len(receipts) == 20
    assert [e["tile"] for e in events if e["event"] == "tile_again"] == [[0, 0], [0, 1]]
    assert not pool.killed


def test_hung_worker_is_replaced() -> None:
    def hang(pool: FakePool, worker: int, place: tuple[int, int]) -> Any:
        return "silent" if worker == 0 else None

    pool = FakePool(hang)
    receipts, events = _run(pool, target=lambda: 1, deadline=10.0)
    assert pool.killed == [0]
    assert sorted((r.i, r.j) for r in receipts) == PLACES
    lost = next(e for e in events if e["event"] == "worker_lost")
    assert (lost["reason"], lost["was_ready"], lost["tiles"]) == ("no result for 10 s", True, [[0, 0], [0, 1]])


def test_each_loss_costs_at_most_the_tiles_in_hand() -> None:
    deaths = iter(range(8))

    def die(pool: FakePool, worker: int, place: tuple[int, int]) -> Any:
        return Lost("killed") if pool.now % 3 == 0 and next(deaths, None) is not None else None

    pool = FakePool(die)
    receipts, events = _run(pool)
    assert sorted((r.i, r.j) for r in receipts) == sorted(pool.computed) == PLACES
    again = [e for e in events if e["event"] == "tile_again"]
    assert 8 <= len(again) <= 16


def test_workers_that_all_die_end_the_build() -> None:
    def die(pool: FakePool, worker: int, place: tuple[int, int]) -> Any:
        return Lost("out of memory")

    with pytest.raises(GramBuildError, match=r"lost.*out of memory"):
        _run(FakePool(die))


def test_tile_that_cannot_be_computed_ends_the_build_at_once() -> None:
    def fail(pool: FakePool, worker: int, place: tuple[int, int]) -> Any:
        return Failure(f"tile {place}: image 7") if place == (0, 3) else None

    pool = FakePool(fail)
    with pytest.raises(GramBuildError, match=r"tile \(0, 3\): image 7"):
        _run(pool)
    assert pool.now < 5


def test_a_cluster_without_free_cores_is_not_waited_for_for_ever() -> None:
    class Full(FakePool):
        def poll(self, timeout: float) -> list[tuple[int, Any]]:  # noqa: ARG002 - of the protocol
            self.now += 30.0
            return []

    pool = Full()
    with pytest.raises(GramBuildError, match="no worker was ready within 600 s"):
        _run(pool)
    assert pool.started == 2


def test_a_build_whose_nodes_are_all_gone_ends_in_bounded_time() -> None:
    class Deserted(FakePool):
        def poll(self, timeout: float) -> list[tuple[int, Any]]:
            if self.now < 5:
                return super().poll(timeout)
            self.now += 30.0
            gone, self.ready = self.ready, []
            return [(worker, Lost("its node is gone")) for worker in gone]

    pool = Deserted()
    with pytest.raises(GramBuildError, match=r"no worker was ready within 600 s.*run the same command again"):
        _run(pool)
    assert pool.computed, "some tiles were finished before"
    assert 600 < pool.now < 700


def test_worker_that_is_found_lost_in_the_moment_it_is_overdue() -> None:
    def hang_then_die(pool: FakePool, worker: int, place: tuple[int, int]) -> Any:
        if worker != 0:
            return None
        return Lost("killed") if pool.now == 12 else "silent"

    pool = FakePool(hang_then_die)
    receipts, events = _run(pool, target=lambda: 1, deadline=10.0)
    assert pool.killed == []
    assert [e["reason"] for e in events if e["event"] == "worker_lost"] == ["killed"]
    assert len(receipts) == 20
