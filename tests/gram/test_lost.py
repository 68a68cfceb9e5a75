"""What Ray's errors mean to each of the loops that ask actors: another one is tried, or one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RaySystemError, RuntimeEnvSetupError

from advntk_dist.errors import GramBuildError, SolverError
from advntk_dist.evaluation.crew import Crew, EvaluationActor
from advntk_dist.evaluation.worker import Failure
from advntk_dist.gram.lost import reason
from advntk_dist.gram.pool import Lost, WorkerPool, _Member
from advntk_dist.operators.placement import Seat
from advntk_dist.operators.resident import ResidentOperator

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
    assert reason(error) == said


@each_loss
def test_a_worker_that_is_gone_costs_a_build_its_tiles(
    monkeypatch: pytest.MonkeyPatch, error: RayError, said: str
) -> None:
    pool = WorkerPool()
    pool._members[3], pool._waiting["its tile"] = _Member(None), 3
    _answers(monkeypatch, error)
    assert pool.poll(0.0) == [(3, Lost(said))]
    assert not pool._members


@each_loss
def test_a_worker_that_is_gone_costs_an_evaluation_its_batch(
    monkeypatch: pytest.MonkeyPatch, error: RayError, said: str
) -> None:
    crew, member = Crew(120.0, 600.0), EvaluationActor(0, None, "its batch", 0.0)
    crew.members.append(member)
    _answers(monkeypatch, error)
    assert crew.poll() == [(member, said)]


class Holders(ResidentOperator):
    """One holder, which is asked and replaced without Ray."""

    def __init__(self) -> None:
        self._seats, self._actors, self._loaded = [Seat("here", 1)], {}, {0}
        self._losses, self._share_bytes, self.patience, self.replaced = {0: 0}, 1, 10.0, 0
        self.started = 0

    def _start(self, number: int) -> Any:  # noqa: ARG002 - what is overridden
        self.started += 1
        return SimpleNamespace(load=SimpleNamespace(remote=lambda: f"answer {self.started}"))


@each_loss
def test_a_holder_that_is_gone_is_replaced(monkeypatch: pytest.MonkeyPatch, error: RayError, said: str) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "here", "Alive": True, "Resources": {"CPU": 1}}])
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # nothing is to be killed
    operator = Holders()
    _answers(monkeypatch, error, "its tiles")
    assert operator._ask("load") == {0: "its tiles"}
    assert (operator.started, operator.replaced) == (2, 1)


def test_what_else_goes_wrong_in_ray_ends_it_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, crew, operator = WorkerPool(), Crew(120.0, 600.0), Holders()
    pool._members[3], pool._waiting["its tile"] = _Member(None), 3
    crew.members.append(EvaluationActor(0, None, "its batch", 0.0))
    _answers(monkeypatch, CONFUSED, CONFUSED, CONFUSED)
    with pytest.raises(GramBuildError, match=r"\(RaySystemError: .*confused\); run the same command again$"):
        pool.poll(0.0)
    ((_, outcome),) = crew.poll()
    assert isinstance(outcome, Failure)
    assert outcome.message.endswith("confused); run the same command again")
    with pytest.raises(SolverError, match=r"\(RaySystemError: .*confused\); run the same command again$"):
        operator._ask("load")


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
