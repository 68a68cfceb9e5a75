"""The scheduler against a pool without Ray, on a clock that the pool itself moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from advntk_dist.distributed.autoscaling import WorkerTarget, worker_target
from advntk_dist.distributed.pool import Call, Lost, PoolEvent
from advntk_dist.distributed.scheduler import run_tasks
from advntk_dist.distributed.task_queue import TaskQueue
from advntk_dist.distributed.worker import Failure, WorkerInfo
from advntk_dist.errors import GramBuildError

PLACES = [(0, j) for j in range(20)]


class Done(NamedTuple):
    """A tile and the worker that computed it."""

    place: tuple[int, int]
    worker: int


Behaviour = Callable[["FakePool", int, tuple[int, int]], Any]


class FakePool:
    """Workers that take one second a tile; ``behaviour`` may answer otherwise, "silent" meaning not yet."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.now = 0.0
        self.ready: list[int] = []
        self.starting: list[int] = []
        self.started = 0
        self.gpu: dict[int, bool] = {}
        self.queues: dict[int, list[tuple[int, int]]] = {}
        self.killed: list[int] = []
        self.most_held = 0
        self.computed: list[tuple[int, int]] = []
        self.behaviour = behaviour

    def start(self, gpu: bool) -> int:
        self.starting.append(self.started)
        self.gpu[self.started] = gpu
        self.started += 1
        return self.started - 1

    @property
    def kinds(self) -> dict[int, bool]:
        return {worker: self.gpu[worker] for worker in sorted([*self.ready, *self.starting])}

    def submit(self, worker: int, key: Any, call: Call) -> None:
        assert worker in self.ready
        assert call.arguments[:2] == key
        self.queues[worker].append(key)
        self.most_held = max(self.most_held, len(self.queues[worker]))

    def kill(self, worker: int) -> None:
        self.killed.append(worker)
        (self.ready if worker in self.ready else self.starting).remove(worker)

    def poll(self, timeout: float) -> list[PoolEvent]:  # noqa: ARG002 - of the protocol
        self.now += 1.0
        events: list[PoolEvent] = []
        for worker in list(self.ready):
            if not self.queues[worker]:
                continue
            place = self.queues[worker][0]
            outcome: Any = Done(place, worker)
            if self.behaviour is not None:
                outcome = self.behaviour(self, worker, place) or outcome
            if outcome == "silent":
                continue
            self.queues[worker].pop(0)
            if isinstance(outcome, Lost):
                self.ready.remove(worker)
            elif isinstance(outcome, Done):
                self.computed.append(place)
            events.append(PoolEvent(worker, place, outcome))
        for worker in self.starting:
            self.ready.append(worker)
            self.queues[worker] = []
            events.append(PoolEvent(worker, None, WorkerInfo(worker, "node", "here", "cpu")))
        self.starting = []
        return events


class Idle(FakePool):
    """Its workers never start, and it is asked every half minute."""

    def poll(self, timeout: float) -> list[PoolEvent]:  # noqa: ARG002 - of the protocol
        self.now += 30.0
        return []


def _two(work: float) -> WorkerTarget:
    return worker_target(0, 2)


def _run(
    pool: FakePool, *, target: Callable[[float], WorkerTarget] = _two, **keywords: Any
) -> tuple[list[Done], list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    queue = TaskQueue(PLACES, "tile", GramBuildError, depth=2, duplicates=True, **keywords)
    results = run_tasks(
        queue,
        pool,
        lambda key, attempt: Call("tile", f"tile {key}", (*key, attempt)),
        target=target,
        on_event=events.append,
        clock=lambda: pool.now,
    )
    done = []
    for key, outcome in results:
        assert outcome.place == key
        done.append(outcome)
    return done, events


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
    _run(pool, target=lambda work: worker_target(0, 1 if pool.now < 4 else 5))
    assert pool.started == 5
    assert sorted(pool.computed) == PLACES
    assert pool.now < 14


def test_slow_worker_holds_nobody_up_and_its_last_tile_is_duplicated() -> None:
    def slow(pool: FakePool, worker: int, place: tuple[int, int]) -> Any:
        return "silent" if worker == 0 and pool.now < 500 else None

    pool = FakePool(slow)
    receipts, events = _run(pool)
    assert pool.now < 30
    assert sorted({r.place for r in receipts}) == PLACES
    assert len(receipts) == 20
    assert [e["task"] for e in events if e["event"] == "task_again"] == [(0, 0), (0, 1)]
    assert not [e for e in events if e["event"] == "worker_lost"]
    assert pool.killed == [0], "at the end, so that its late answer is not taken for one to the next job"


def test_hung_worker_is_replaced() -> None:
    def hang(pool: FakePool, worker: int, place: tuple[int, int]) -> Any:
        return "silent" if worker == 0 else None

    pool = FakePool(hang)
    receipts, events = _run(pool, target=lambda work: worker_target(0, 1), deadline=10.0)
    assert pool.killed == [0]
    assert sorted(r.place for r in receipts) == PLACES
    lost = next(e for e in events if e["event"] == "worker_lost")
    assert (lost["reason"], lost["was_ready"], lost["tasks"]) == ("no result for 10 s", True, [(0, 0), (0, 1)])


def test_each_loss_costs_at_most_the_tiles_in_hand() -> None:
    deaths = iter(range(8))

    def die(pool: FakePool, worker: int, place: tuple[int, int]) -> Any:
        return Lost("killed") if pool.now % 3 == 0 and next(deaths, None) is not None else None

    pool = FakePool(die)
    receipts, events = _run(pool)
    assert sorted(r.place for r in receipts) == sorted(pool.computed) == PLACES
    again = [e for e in events if e["event"] == "task_again"]
    assert 8 <= len(again) <= 16


def test_workers_that_all_die_end_the_build() -> None:
    def die(pool: FakePool, worker: int, place: tuple[int, int]) -> Any:
        return Lost("out of memory")

    with pytest.raises(GramBuildError, match=r"lost.*out of memory"):
        _run(FakePool(die))


def test_tile_that_cannot_be_computed_ends_the_build_at_once() -> None:
    def fail(pool: FakePool, worker: int, place: tuple[int, int]) -> Any:
        return Failure("ValueError", f"tile {place}: image 7") if place == (0, 3) else None

    pool = FakePool(fail)
    with pytest.raises(GramBuildError, match=r"tile \(0, 3\): image 7"):
        _run(pool)
    assert pool.now < 5


def test_a_cluster_without_free_cores_is_not_waited_for_for_ever() -> None:
    pool = Idle()
    with pytest.raises(GramBuildError, match="no worker was ready within 600 s"):
        _run(pool)
    assert pool.started == 2


def test_a_build_whose_nodes_are_all_gone_ends_in_bounded_time() -> None:
    class Deserted(FakePool):
        def poll(self, timeout: float) -> list[PoolEvent]:
            if self.now < 5:
                return super().poll(timeout)
            self.now += 30.0
            gone, self.ready = self.ready, []
            return [PoolEvent(worker, None, Lost("its node is gone")) for worker in gone]

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
    receipts, events = _run(pool, target=lambda work: worker_target(0, 1), deadline=10.0)
    assert pool.killed == []
    assert [e["reason"] for e in events if e["event"] == "worker_lost"] == ["killed"]
    assert len(receipts) == 20


def _kinds(events: list[dict[str, Any]], name: str) -> list[bool]:
    return [e["gpu"] for e in events if e["event"] == name]


def test_cores_make_way_for_the_first_gpu() -> None:
    pool = FakePool()
    receipts, events = _run(pool, target=lambda work: worker_target(0 if pool.now < 5 else 1, 2))
    assert sorted(r.place for r in receipts) == sorted(pool.computed) == PLACES
    assert _kinds(events, "worker_started") == [False, False, True]
    assert _kinds(events, "worker_retired") == [False, False]
    assert all(e["was_ready"] for e in events if e["event"] == "worker_retired")
    assert not [e for e in events if e["event"] in ("worker_lost", "task_again")], "they finish what they have"
    assert pool.ready == [2]
    assert sum(r.worker == 2 for r in receipts) == 8, "they take no more"


def test_a_worker_that_waits_for_a_core_makes_way_at_once() -> None:
    class OneNode(FakePool):
        """No core at first, and a GPU from then on, so that nobody without one ever starts."""

        def poll(self, timeout: float) -> list[PoolEvent]:
            if any(self.gpu[worker] for worker in self.starting) or self.ready:
                return super().poll(timeout)
            self.now += 1.0
            return []

    pool = OneNode()
    _, events = _run(pool, target=lambda work: worker_target(0, 0) if pool.now < 5 else worker_target(1, 8))
    assert [(e["event"], e["worker"]) for e in events] == [
        ("worker_started", 0), ("worker_retired", 0), ("worker_started", 1), ("worker_ready", 1)
    ]  # fmt: skip
    assert pool.killed == [0]


def test_cores_go_on_where_the_gpus_are_gone_and_their_slower_pace_is_no_silence() -> None:
    class Preempted(FakePool):
        """Its GPU is gone at 6 s, and does not come back."""

        def poll(self, timeout: float) -> list[PoolEvent]:
            waiting = [w for w in self.starting if self.gpu[w] and self.now >= 6]
            self.starting = [w for w in self.starting if w not in waiting]
            events = super().poll(timeout)
            self.starting = waiting
            return events

    def slow(pool: FakePool, worker: int, place: tuple[int, int]) -> Any:
        if pool.gpu[worker]:
            return Lost("its node is gone") if pool.now >= 6 else None
        return "silent" if pool.now % 100 else None

    pool = Preempted(slow)
    receipts, events = _run(
        pool, target=lambda work: worker_target(1, 1) if pool.now < 6 else worker_target(0, 1, had_gpus=True)
    )
    assert len(receipts) == len(PLACES)
    assert pool.now > 500, "the others took 100 s a tile, and the GPU one"
    assert _kinds(events, "worker_started") == [True, True, False]
    assert {e["reason"] for e in events if e["event"] == "worker_lost"} == {"its node is gone"}


def test_workers_that_wait_for_a_node_are_let_go_when_there_is_no_more_work_for_them() -> None:
    class Full(FakePool):
        """Two of its workers have a core; the others wait for a node that does not come."""

        def poll(self, timeout: float) -> list[PoolEvent]:
            waiting, self.starting = [w for w in self.starting if w > 1], [w for w in self.starting if w <= 1]
            events = super().poll(timeout)
            self.starting = waiting
            return events

    pool, asked = Full(), list[float]()

    def target(work: float) -> WorkerTarget:
        asked.append(work)
        return worker_target(0, 2, work=60 * work)

    receipts, events = _run(pool, target=target)
    assert len(receipts) == len(PLACES)
    assert pool.started == 4
    assert [e["worker"] for e in events if e["event"] == "worker_retired"] == [3, 2]
    assert asked[0] == 0
    assert max(asked) == 14, "tiles that waited when it was asked again, a second each"
    assert asked == sorted(asked[:1]) + sorted(asked[1:], reverse=True)


def test_where_there_is_no_node_it_is_not_the_workers_that_are_slow() -> None:
    pool = Idle()

    def target(work: float) -> WorkerTarget:
        if pool.now > 5000:
            raise GramBuildError("no node came")
        return worker_target(0, 0)

    with pytest.raises(GramBuildError, match="no node came"):
        _run(pool, target=target)


def test_an_iteration_that_is_ended_early_leaves_no_worker_with_a_task() -> None:
    pool = FakePool()
    queue = TaskQueue(PLACES, "tile", GramBuildError)
    results = run_tasks(
        queue, pool, lambda key, attempt: Call("tile", "", (*key, attempt)), target=_two, clock=lambda: pool.now
    )
    next(results)
    assert queue.busy
    results.close()
    assert pool.killed == queue.busy


def test_workers_that_are_there_already_are_used() -> None:
    """As in one evaluation after another on one pool; here one of them is ready and the other still starts."""
    pool = FakePool()
    pool.start(gpu=False)
    pool.poll(0.0)
    pool.start(gpu=False)
    receipts, events = _run(pool)
    assert len(receipts) == 20
    assert [e["event"] for e in events] == ["worker_ready"]
    assert pool.started == 2
