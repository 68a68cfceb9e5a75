"""Batches on Ray actors: the same rows as in this process, whatever happens to the actors."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ray import cloudpickle

from advntk_dist import pgd
from advntk_dist.data.registry import load_dataset
from advntk_dist.errors import EvaluationError, RequestError
from advntk_dist.evaluation.evaluate import NamedAttack, evaluate_sequence
from advntk_dist.evaluation.evaluator import Batch, InProcess, Withstands, is_right
from advntk_dist.evaluation.remote import EvaluationPool
from advntk_dist.networks import network
from advntk_dist.predictor import KernelPredictor
from advntk_dist.storage import guarded_group
from tests.waiting import wait_until

N, M, BATCH = 60, 50, 16

# Workers cannot import test modules.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Digits:
    """A small predictor, and test images."""

    def __init__(self) -> None:
        data = load_dataset("digits")
        self.net = network("mlp-2")
        x = data.x.astype(np.float32) / 255 - 0.5
        self.x_train, self.x, self.y = x[:N], x[N : N + M], data.y[N : N + M]
        theta = np.asarray(self.net.ntk(self.x_train, self.x_train), np.float64)
        self.c = np.linalg.solve(theta + 0.1 * np.eye(N), np.eye(10)[data.y[:N]])

    def predictor(self) -> KernelPredictor:
        return KernelPredictor(self.net, self.x_train, self.c, batch=BATCH)

    def batches(self, task: Any) -> list[Batch]:
        return [Batch(np.arange(s, min(s + BATCH, M)), task) for s in range(0, M, BATCH)]


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


@pytest.fixture(scope="module")
def pool(digits: Digits, ray_cluster: None) -> Iterator[EvaluationPool]:
    with EvaluationPool(digits.net, digits.x_train, BATCH, workers=2) as pool:
        yield pool


def attacking(*args: Any, **keywords: Any) -> NDArray[Any]:
    return pgd(*args, radius=0.1, steps=5, **keywords)


def in_order(results: Iterator[tuple[Batch, NDArray[Any]]]) -> NDArray[Any]:
    found = {int(batch.indices[0]): rows for batch, rows in results}
    return np.concatenate([found[k] for k in sorted(found)])


def test_actors_give_the_rows_of_this_process(digits: Digits, pool: EvaluationPool) -> None:
    there = pool.evaluator(lambda: digits.c, digits.x, digits.y)
    here = InProcess(digits.predictor, digits.x, digits.y)
    for task in (is_right, Withstands(attacking, "linf", 3)):
        a, b = in_order(there.map(digits.batches(task))), in_order(here.map(digits.batches(task)))
        np.testing.assert_array_equal(a, b)
        assert 0 < a[:, 0].mean() < 1


def test_other_coefficients_meet_the_same_prepared_images(digits: Digits, pool: EvaluationPool) -> None:
    flipped = pool.evaluator(lambda: digits.c[:, ::-1], digits.x, 9 - digits.y)
    upright = pool.evaluator(lambda: digits.c, digits.x, digits.y)
    a = in_order(flipped.map(digits.batches(is_right)))
    np.testing.assert_array_equal(a, in_order(upright.map(digits.batches(is_right))))
    assert pool._pool._started == 2


def test_nothing_is_started_and_no_coefficients_are_asked_for_without_a_batch(digits: Digits) -> None:
    def never() -> Any:
        raise AssertionError("asked for coefficients")

    with EvaluationPool(digits.net, digits.x_train, BATCH, workers=2) as idle:
        assert list(idle.evaluator(never, digits.x, digits.y).map([])) == []
        assert idle._pool._started == 0


def test_a_sequence_on_actors(digits: Digits, pool: EvaluationPool, tmp_path: Path) -> None:
    attacks = [NamedAttack("a", attacking, 1), NamedAttack("b", attacking, 2)]
    results = [
        evaluate_sequence(
            evaluator,
            M,
            attacks,
            norm="linf",
            group=guarded_group(tmp_path / name, {}),
            name="x",
            batch=BATCH,
        ).as_dict()
        for name, evaluator in (
            ("there", pool.evaluator(lambda: digits.c, digits.x, digits.y)),
            ("here", InProcess(digits.predictor, digits.x, digits.y)),
        )
    ]
    assert results[0] == results[1]


class Raises:
    def __call__(self, *_: Any) -> Any:
        raise ArithmeticError("no derivative here")


def test_a_batch_that_cannot_be_judged_ends_it_in_one_line(digits: Digits, pool: EvaluationPool) -> None:
    where = pool.evaluator(lambda: digits.c, digits.x, digits.y)
    with pytest.raises(EvaluationError, match=r"images \d+ to \d+: ArithmeticError: no derivative here"):
        list(where.map(digits.batches(Raises())))
    # Who failed goes on, and what was under way elsewhere is not mistaken for an answer to the next question.
    started, asked = pool._pool._started, digits.batches(is_right)[1:2]
    here = InProcess(digits.predictor, digits.x, digits.y)
    np.testing.assert_array_equal(in_order(where.map(asked)), in_order(here.map(asked)))
    assert pool._pool._started == started


@dataclass(frozen=True)
class DiesOnce:
    """Judges as ``is_right`` does, but the first process that comes upon an image is ended by a signal."""

    image: int
    mark: Path
    by: int

    def __call__(self, predictor: Any, x: Any, y: Any, indices: Any) -> Any:
        if self.image in indices and not self.mark.exists():
            self.mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), self.by)
            time.sleep(0.1)
        return is_right(predictor, x, y)


def test_a_killed_and_a_hung_actor_are_replaced_and_their_batches_done_again(
    digits: Digits, pool: EvaluationPool, tmp_path: Path
) -> None:
    pool.close()  # the cluster has two cores
    events: list[dict[str, Any]] = []
    tasks = [DiesOnce(20, tmp_path / "killed", signal.SIGKILL), DiesOnce(40, tmp_path / "hung", signal.SIGSTOP)]
    batches = digits.batches(is_right)
    batches[1:3] = [Batch(batches[k].indices, tasks[k - 1]) for k in (1, 2)]
    with EvaluationPool(digits.net, digits.x_train, BATCH, workers=1, on_event=events.append, patience=5.0) as fragile:
        rows = in_order(fragile.evaluator(lambda: digits.c, digits.x, digits.y).map(batches))
    here = InProcess(digits.predictor, digits.x, digits.y)
    np.testing.assert_array_equal(rows, in_order(here.map(digits.batches(is_right))))
    lost = [e for e in events if e["event"] == "evaluator_lost"]
    # A machine that is busy enough may lose more: what hangs is told from what is slow by time alone.
    assert [16, 31] in [e["images"] for e in lost]
    hung = [e for e in lost if e["images"] == [32, 47]]
    assert "no sign of life" in hung[0]["reason"]
    assert [e["event"] for e in events].count("evaluator_ready") >= 3
    status = Path("/proc", (tmp_path / "hung").read_text(), "status")
    wait_until(
        lambda: not status.exists() or "\nState:\tZ" in status.read_text(), why="the hung process is still there"
    )


@dataclass(frozen=True)
class Dies:
    def __call__(self, *_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_workers_that_all_die_end_it(digits: Digits, pool: EvaluationPool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.close()
    events: list[dict[str, Any]] = []
    monkeypatch.setattr("advntk_dist.distributed.scheduler.LOSSES", (0, 0))
    with EvaluationPool(digits.net, digits.x_train, BATCH, workers=1, on_event=events.append) as fragile:
        where = fragile.evaluator(lambda: digits.c, digits.x, digits.y)
        with pytest.raises(EvaluationError, match=r"1 workers were lost and none finished a batch"):
            list(where.map(digits.batches(Dies())))
    assert [e["event"] for e in events].count("evaluator_lost") == 1


def test_a_cluster_without_free_cores_is_not_waited_for_for_ever(
    digits: Digits, pool: EvaluationPool, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.close()
    monkeypatch.setattr("advntk_dist.distributed.scheduler.STARTUP_SECONDS", 2.0)
    with EvaluationPool(digits.net, digits.x_train, BATCH, workers=1) as deserted:
        start_with = deserted._pool.start_with
        monkeypatch.setattr(
            deserted._pool, "start_with", lambda asked, *job: start_with(replace(asked, memory=2**60), *job)
        )
        where = deserted.evaluator(lambda: digits.c, digits.x, digits.y)
        with pytest.raises(EvaluationError, match=r"no worker was ready within 2 s.*run the same command again"):
            list(where.map(digits.batches(is_right)))


def test_a_number_of_workers_must_be_possible(digits: Digits) -> None:
    with pytest.raises(RequestError, match=r"evaluation\.workers"):
        EvaluationPool(digits.net, digits.x_train, BATCH, workers=0)
