"""Who of a crew is started and who is let go, without Ray."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from advntk_dist.evaluation.crew import Crew, EvaluationActor
from advntk_dist.evaluation.evaluator import Batch, is_right
from advntk_dist.evaluation.worker import Ready
from advntk_dist.gram.staff import staff


class Unpaid(Crew):
    """Its members are no actors; they are ready when the test says so."""

    def start(self, arguments: tuple[Any, ...], gpu: bool) -> int:  # noqa: ARG002 - what is overridden
        self.members.append(EvaluationActor(self.started, None, None, time.monotonic(), gpu=gpu))
        self.started += 1
        return self.started - 1

    def kill(self, member: EvaluationActor) -> None:
        self.members.remove(member)


@pytest.fixture
def crew() -> Unpaid:
    return Unpaid(120.0, 600.0)


def _told(told: list[dict[str, Any]]) -> list[tuple[str, int, bool]]:
    return [(e["event"], e["worker"], e["gpu"]) for e in told]


def test_as_many_as_there_are_cores_and_batches(crew: Unpaid) -> None:
    assert _told(crew.bring_to(staff(0, 3), 2, ())) == [
        ("evaluator_started", 0, False), ("evaluator_started", 1, False)
    ]  # fmt: skip
    assert crew.bring_to(staff(0, 3), 2, ()) == []
    assert _told(crew.bring_to(staff(0, 3), 9, ())) == [("evaluator_started", 2, False)]


def test_cores_make_way_for_the_first_gpu_when_they_have_no_batch(crew: Unpaid) -> None:
    crew.bring_to(staff(0, 3), 9, ())
    idle, busy, _ = crew.members
    idle.info = busy.info = Ready(1, "node", "host")
    busy.batch = Batch(np.arange(4), is_right)
    assert _told(crew.bring_to(staff(1, 8), 9, ())) == [
        ("evaluator_retired", 2, False), ("evaluator_retired", 0, False), ("evaluator_started", 3, True)
    ]  # fmt: skip
    busy.batch = None
    assert _told(crew.bring_to(staff(1, 8), 9, ())) == [("evaluator_retired", 1, False)]
    assert [m.number for m in crew.members] == [3]


def test_who_waits_for_a_node_is_let_go_where_there_is_less_work(crew: Unpaid) -> None:
    crew.bring_to(staff(2, 8, work=1e9), 9, ())
    assert [m.gpu for m in crew.members] == [True] * 4
    for member in crew.members[:2]:
        member.info = Ready(1, "node", "host")
    assert _told(crew.bring_to(staff(2, 8), 9, ())) == [("evaluator_retired", 3, True), ("evaluator_retired", 2, True)]
    for member in crew.members:
        member.batch = Batch(np.arange(4), is_right)
    assert crew.bring_to(staff(1, 8), 9, ()) == [], "who is ready and of the kind that is wanted stays"
