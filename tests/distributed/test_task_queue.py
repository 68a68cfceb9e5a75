from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advntk_dist.distributed.task_queue import MAX_ATTEMPTS, TaskQueue
from advntk_dist.errors import GramBuildError

PLACES = [(0, j) for j in range(12)]


def queue_of(places: list[tuple[int, int]], *, depth: int = 2, **keywords: Any) -> TaskQueue:
    return TaskQueue(places, "tile", GramBuildError, depth=depth, duplicates=True, **keywords)


def test_tiles_are_handed_out_in_order_up_to_the_depth() -> None:
    queue = queue_of(PLACES)
    assert queue.take(7, 0.0) == ((0, 0), 1)
    assert queue.take(7, 0.0) == ((0, 1), 1)
    assert queue.take(7, 0.0) is None
    assert queue.finish(7, (0, 0), 1.0)
    assert queue.take(7, 1.0) == ((0, 2), 1)


def test_the_last_tiles_are_not_hoarded() -> None:
    queue = queue_of(PLACES[:3])
    assert queue.take(1, 0.0) == ((0, 0), 1)
    assert queue.take(2, 0.0) == ((0, 1), 1)
    assert queue.take(1, 0.0) is None, "one tile is left for two workers: it goes to the first that is idle"
    queue.finish(2, (0, 1), 1.0)
    assert queue.take(2, 1.0) == ((0, 2), 1)


def test_lost_tiles_come_first_and_count_as_another_attempt() -> None:
    queue = queue_of(PLACES)
    queue.take(1, 0.0)
    queue.take(1, 0.0)
    assert queue.lose(1, "killed") == [(0, 0), (0, 1)]
    assert queue.take(2, 1.0) == ((0, 0), 2)
    assert queue.take(2, 1.0) == ((0, 1), 2)
    assert queue.take(3, 1.0) == ((0, 2), 1)


def test_a_tile_that_always_kills_its_worker_ends_the_build() -> None:
    queue = queue_of(PLACES[:1])
    for worker in range(MAX_ATTEMPTS - 1):
        queue.take(worker, 0.0)
        queue.lose(worker, "out of memory")
    queue.take(99, 0.0)
    with pytest.raises(GramBuildError, match=r"tile \(0, 0\): 10 workers were lost.*out of memory"):
        queue.lose(99, "out of memory")


def test_a_straggler_goes_to_an_idle_worker_once_and_the_first_result_counts() -> None:
    queue = queue_of(PLACES[:5], depth=1)
    queue.take(1, 0.0)  # will be slow
    for j in range(1, 5):
        queue.take(2, float(j))
        queue.finish(2, (0, j), j + 1.0)
    assert queue.take(2, 3.0) is None, "not late yet"
    assert queue.take(2, 5.0) == ((0, 0), 2)
    assert queue.take(3, 50.0) is None, "two workers on one tile are enough"
    assert queue.finish(2, (0, 0), 6.0)
    assert queue.complete
    assert not queue.finish(1, (0, 0), 7.0)


def test_without_duplicates_a_late_task_stays_where_it_is() -> None:
    queue = TaskQueue(PLACES[:5], "batch", GramBuildError)
    queue.take(1, 0.0)
    for j in range(1, 5):
        assert queue.take(2, float(j)) == ((0, j), 1)
        assert queue.take(2, float(j)) is None, "one at a time"
        queue.finish(2, (0, j), j + 1.0)
    assert queue.take(2, 1e6) is None
    assert queue.busy == [1]
    queue.give_up(1, (0, 0))
    assert queue.busy == []


def test_losing_one_holder_of_a_copy_hands_nothing_out_again() -> None:
    queue = queue_of(PLACES[:5], depth=1)
    queue.take(1, 0.0)
    for j in range(1, 5):
        queue.take(2, float(j))
        queue.finish(2, (0, j), j + 1.0)
    queue.take(2, 50.0)
    assert queue.lose(1, "killed") == []
    assert queue.lose(2, "killed") == [(0, 0)]


def test_silence_past_the_deadline() -> None:
    queue = queue_of(PLACES, deadline=10.0)
    queue.take(1, 0.0)
    queue.take(1, 0.0)
    queue.take(2, 0.0)
    queue.finish(2, (0, 2), 1.0)
    assert queue.overdue(10.0) == []
    queue.finish(1, (0, 0), 9.0)
    assert queue.overdue(15.0) == [], "worker 1 answered 6 s ago, worker 2 has nothing to do"
    assert queue.overdue(20.0) == [1]


def test_deadline_follows_the_tiles() -> None:
    queue = queue_of(PLACES)
    assert queue.deadline == 600.0
    queue.take(1, 0.0)
    queue.finish(1, (0, 0), 0.5)
    assert queue.deadline == 60.0
    queue.take(1, 1.0)
    queue.take(1, 1.0)
    queue.finish(1, (0, 1), 101.0)
    queue.finish(1, (0, 2), 201.0)
    assert queue.deadline == 3000.0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["take", "finish", "lose"]), st.integers(0, 3)), max_size=80))
def test_whatever_happens_each_tile_is_waiting_held_or_finished(steps: list[tuple[str, int]]) -> None:
    queue, first = queue_of(PLACES), []
    for now, (action, worker) in enumerate(steps):
        if action == "take":
            queue.take(worker, float(now))
        elif action == "finish" and (held := queue.held.get(worker)) and held.tasks:
            place = next(iter(held.tasks))
            if queue.finish(worker, place, float(now)):
                first.append(place)
        elif action == "lose":
            try:
                queue.lose(worker, "killed")
            except GramBuildError:
                return
        out = {p for h in queue.held.values() for p in h.tasks} - queue.finished
        assert {*queue.pending, *out, *queue.finished} == set(PLACES)
        assert len(queue.pending) + len(out) + len(queue.finished) == len(PLACES)
    assert len(first) == len(set(first)) == len(queue.finished)
