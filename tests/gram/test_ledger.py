from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advntk_dist.errors import GramBuildError
from advntk_dist.gram.ledger import MAX_ATTEMPTS, TileLedger

PLACES = [(0, j) for j in range(12)]


def test_tiles_are_handed_out_in_order_up_to_the_depth() -> None:
    ledger = TileLedger(PLACES)
    assert ledger.take(7, 0.0, depth=2) == ((0, 0), 1)
    assert ledger.take(7, 0.0, depth=2) == ((0, 1), 1)
    assert ledger.take(7, 0.0, depth=2) is None
    assert ledger.finish(7, (0, 0), 1.0)
    assert ledger.take(7, 1.0, depth=2) == ((0, 2), 1)


def test_the_last_tiles_are_not_hoarded() -> None:
    ledger = TileLedger(PLACES[:3])
    assert ledger.take(1, 0.0, depth=2) == ((0, 0), 1)
    assert ledger.take(2, 0.0, depth=2) == ((0, 1), 1)
    assert ledger.take(1, 0.0, depth=2) is None, "one tile is left for two workers: it goes to the first that is idle"
    ledger.finish(2, (0, 1), 1.0)
    assert ledger.take(2, 1.0, depth=2) == ((0, 2), 1)


def test_lost_tiles_come_first_and_count_as_another_attempt() -> None:
    ledger = TileLedger(PLACES)
    ledger.take(1, 0.0, depth=2)
    ledger.take(1, 0.0, depth=2)
    assert ledger.lose(1, "killed") == [(0, 0), (0, 1)]
    assert ledger.take(2, 1.0, depth=2) == ((0, 0), 2)
    assert ledger.take(2, 1.0, depth=2) == ((0, 1), 2)
    assert ledger.take(3, 1.0, depth=2) == ((0, 2), 1)


def test_a_tile_that_always_kills_its_worker_ends_the_build() -> None:
    ledger = TileLedger(PLACES[:1])
    for worker in range(MAX_ATTEMPTS - 1):
        ledger.take(worker, 0.0, depth=2)
        ledger.lose(worker, "out of memory")
    ledger.take(99, 0.0, depth=2)
    with pytest.raises(GramBuildError, match=r"tile \(0, 0\): 10 workers were lost.*out of memory"):
        ledger.lose(99, "out of memory")


def test_a_straggler_goes_to_an_idle_worker_once_and_the_first_result_counts() -> None:
    ledger = TileLedger(PLACES[:5])
    ledger.take(1, 0.0, depth=1)  # will be slow
    for j in range(1, 5):
        ledger.take(2, float(j), depth=1)
        ledger.finish(2, (0, j), j + 1.0)
    assert ledger.take(2, 3.0, depth=1) is None, "not late yet"
    assert ledger.take(2, 5.0, depth=1) == ((0, 0), 2)
    assert ledger.take(3, 50.0, depth=1) is None, "two workers on one tile are enough"
    assert ledger.finish(2, (0, 0), 6.0)
    assert ledger.complete
    assert not ledger.finish(1, (0, 0), 7.0)


def test_losing_one_holder_of_a_copy_hands_nothing_out_again() -> None:
    ledger = TileLedger(PLACES[:5])
    ledger.take(1, 0.0, depth=1)
    for j in range(1, 5):
        ledger.take(2, float(j), depth=1)
        ledger.finish(2, (0, j), j + 1.0)
    ledger.take(2, 50.0, depth=1)
    assert ledger.lose(1, "killed") == []
    assert ledger.lose(2, "killed") == [(0, 0)]


def test_silence_past_the_deadline() -> None:
    ledger = TileLedger(PLACES, deadline=10.0)
    ledger.take(1, 0.0, depth=2)
    ledger.take(1, 0.0, depth=2)
    ledger.take(2, 0.0, depth=2)
    ledger.finish(2, (0, 2), 1.0)
    assert ledger.overdue(10.0) == []
    ledger.finish(1, (0, 0), 9.0)
    assert ledger.overdue(15.0) == [], "worker 1 answered 6 s ago, worker 2 has nothing to do"
    assert ledger.overdue(20.0) == [1]


def test_deadline_follows_the_tiles() -> None:
    ledger = TileLedger(PLACES)
    assert ledger.deadline == 600.0
    ledger.take(1, 0.0, depth=2)
    ledger.finish(1, (0, 0), 0.5)
    assert ledger.deadline == 60.0
    ledger.take(1, 1.0, depth=2)
    ledger.take(1, 1.0, depth=2)
    ledger.finish(1, (0, 1), 101.0)
    ledger.finish(1, (0, 2), 201.0)
    assert ledger.deadline == 3000.0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["take", "finish", "lose"]), st.integers(0, 3)), max_size=80))
def test_whatever_happens_each_tile_is_waiting_held_or_finished(steps: list[tuple[str, int]]) -> None:
    ledger, first = TileLedger(PLACES), []
    for now, (action, worker) in enumerate(steps):
        if action == "take":
            ledger.take(worker, float(now), depth=2)
        elif action == "finish" and (held := ledger.held.get(worker)) and held.tiles:
            place = next(iter(held.tiles))
            if ledger.finish(worker, place, float(now)):
                first.append(place)
        elif action == "lose":
            try:
                ledger.lose(worker, "killed")
            except GramBuildError:
                return
        out = {p for h in ledger.held.values() for p in h.tiles} - ledger.finished
        assert sorted([*ledger.pending, *out, *ledger.finished]) == PLACES
    assert len(first) == len(set(first)) == len(ledger.finished)
