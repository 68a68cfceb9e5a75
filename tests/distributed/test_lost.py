"""What Ray's errors mean to a pool and to workers that hold a part: another one is tried, or one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RaySystemError, RuntimeEnvSetupError

from advntk_dist.distributed.pool import ActorPool, Call, Lost, PoolEvent, Reservation, _Member, ray_error_summary
from advntk_dist.distributed.scheduler import MAX_LOSSES_IN_A_ROW, WorkerPerPart
from advntk_dist.distributed.worker import PooledActor, WorkerInfo
from advntk_dist.errors import AdvNTKError, EvaluationError, GramBuildError, SolverError

LOSSES = [
    OutOfMemoryError("1 worker(s) were killed due to the node running low on memory.\nMore of it."),
    RuntimeEnvSetupError("the agent of the node does not answer\nMore of it."),
    NodeDiedError(""),
]
SAID = [
    "OutOfMemoryError: 1 worker(s) were killed due to the node running low on memory.",
    "RuntimeEnvSetupError: the agent of the node does not answer",
    "NodeDiedError",
]
each_loss = pytest.mark.parametrize(
    ("error", "said"), list(zip(LOSSES, SAID, strict=True)), ids=["memory", "start", "node"]
)
CONFUSED = RaySystemError("a worker of Ray is confused\nMore of it.")


def _answers(monkeypatch: pytest.MonkeyPatch, *outcomes: Any) -> None:
    """Have Ray answer each question with the next of these."""
    coming = iter(outcomes)

    def get(reference: object) -> Any:
        outcome = next(coming)
        if isinstance(outcome, RayError):
            raise outcome
        return outcome

    monkeypatch.setattr(ray, "wait", lambda references, **_: (references[:1], references[1:]))
    monkeypatch.setattr(ray, "get", get)


@each_loss
def test_it_is_told_in_one_line(error: RayError, said: str) -> None:
    assert ray_error_summary(error) == said


def _pool(error: type[AdvNTKError] = GramBuildError) -> ActorPool:
    pool = ActorPool(PooledActor, error)
    pool._members[3] = _Member(None, Reservation(), {}, keys={"its tile": (0, 1)})
    return pool


@each_loss
def test_a_worker_that_is_gone_costs_its_tasks(monkeypatch: pytest.MonkeyPatch, error: RayError, said: str) -> None:
    pool = _pool()
    _answers(monkeypatch, error)
    assert pool.poll(0.0) == [PoolEvent(3, (0, 1), Lost(said))]
    assert not pool.kinds


@pytest.mark.parametrize("error", [GramBuildError, EvaluationError, SolverError])
def test_what_else_goes_wrong_in_ray_ends_it_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: type[AdvNTKError]
) -> None:
    _answers(monkeypatch, CONFUSED)
    with pytest.raises(error, match=r"\(RaySystemError: .*confused\); run the same command again$"):
        _pool(error).poll(0.0)


class Holders(ActorPool):
    """One holder of a part at a time, that is asked and replaced without Ray."""

    def __init__(self) -> None:
        super().__init__(PooledActor, SolverError)
        self.events: list[list[PoolEvent]] = []
        self.killed: list[int] = []
        self.calls: list[tuple[int, Any]] = []
        self.begun = 0

    def begin(self, part: int) -> int:  # noqa: ARG002 - there is one part
        self.begun += 1
        self.events.append([PoolEvent(self.begun, None, WorkerInfo(self.begun, "node", "here", ""))])
        return self.begun

    def submit(self, worker: int, key: Any, call: Call) -> None:  # noqa: ARG002 - what is overridden
        self.calls.append((worker, key))

    def kill(self, worker: int) -> None:
        self.killed.append(worker)

    def poll(self, timeout: float) -> list[PoolEvent]:
        time.sleep(min(timeout, 0.01))
        return self.events.pop(0) if self.events else []


def test_a_holder_that_is_gone_or_late_is_replaced_and_late_answers_are_not_mixed_up() -> None:
    pool, lost = Holders(), []
    parts = WorkerPerPart(pool, 1, pool.begin, lambda *words: lost.append(words), loading=10.0)
    assert parts.ask(None, 10.0) == [None]
    product = Call("product", "", ())
    pool.events = [
        [PoolEvent(1, 1, "to an earlier question")],
        [PoolEvent(1, 2, Lost("killed"))],
        [PoolEvent(2, None, WorkerInfo(2, "node", "here", ""))],
        [PoolEvent(2, 2, "an answer")],
    ]
    assert parts.ask(product, 10.0) == ["an answer"]
    assert (lost, parts.replaced) == ([(0, "killed", True)], 1)
    assert pool.calls == [(1, 2), (2, 2)]
    before = pool.begun
    pool.events = []
    with pytest.raises(SolverError, match=r"part 1 of 1 was lost 3 times in a row.*did not answer in time.*ray status"):
        parts.ask(product, 0.05)
    assert len(pool.killed) == MAX_LOSSES_IN_A_ROW
    assert pool.begun - before == MAX_LOSSES_IN_A_ROW - 1
    assert lost[-1] == (0, "it did not answer in time", True)


SCARCE = """
import json, os, sys
os.environ |= {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "250"}
import numpy as np
from advntk_dist.errors import GramBuildError
from advntk_dist.gram.build import build_gram
from advntk_dist.networks import network
events = []
try:
    build_gram(network("mlp-2"), np.zeros((9, 4, 4, 1), np.uint8) + np.arange(9, dtype=np.uint8)[:, None, None, None],
               store=sys.argv[1], tile=3, workers=1, on_event=events.append)
except GramBuildError as error:
    print(json.dumps([str(error), [e["reason"] for e in events if e["event"] == "worker_lost"]]))
"""


@pytest.mark.slow
def test_the_memory_monitor_of_ray_takes_workers_and_no_more(tmp_path: Path) -> None:
    """Ray itself kills whatever starts here: each costs a worker, and when none gets anywhere it is said in a line."""
    done = subprocess.run(
        [sys.executable, "-c", SCARCE, str(tmp_path / "a")], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said, reasons = json.loads(done.stdout.splitlines()[-1])
    assert len(reasons) == 9
    assert {text.split(":")[0] for text in reasons} == {"OutOfMemoryError"}
    assert "see whether they run out of memory" in said
    assert "\n" not in said
    assert np.all(["\n" not in text for text in reasons])
