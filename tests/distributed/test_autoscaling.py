"""How many workers a cluster should have: decided anew from what it has, and from the work that is left."""

from __future__ import annotations

import logging

import pytest

from advntk_dist.distributed.autoscaling import NODE_SECONDS, WORTH_SECONDS, Autoscaling, WorkerTarget, worker_target
from advntk_dist.errors import EvaluationError


class Cluster:
    """Has what the test gives it, at the time that the test says it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has, self.time = (0, 0), 0.0
        monkeypatch.setattr("advntk_dist.distributed.autoscaling.cluster_workers", lambda: self.has)

    def autoscaling(self, asked: int | None = None, *, grows: bool = False) -> Autoscaling:
        return Autoscaling(asked, grows=grows, error=EvaluationError, clock=lambda: self.time)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_one_worker_a_gpu_or_else_one_a_core() -> None:
    assert worker_target(0, 8) == WorkerTarget(gpu=0, cpu=8, room=8, planned=8)
    assert worker_target(2, 8) == WorkerTarget(gpu=2, cpu=0, room=2, planned=2)
    assert worker_target(2, 8, asked=5) == WorkerTarget(gpu=5, cpu=0, room=2, planned=5)
    assert worker_target(0, 8, asked=5) == WorkerTarget(gpu=0, cpu=5, room=8, planned=5)


def test_a_cluster_of_nothing_is_asked_for_one_core() -> None:
    """Which brings an autoscaler's first node, be it one with a GPU."""
    assert worker_target(0, 0) == WorkerTarget(gpu=0, cpu=1, room=0, planned=1)
    assert worker_target(0, 0, asked=3) == WorkerTarget(gpu=0, cpu=3, room=0, planned=3)


@pytest.mark.parametrize(
    ("shares", "gpus", "wanted"),
    [(0, 4, 4), (4, 4, 4), (6, 4, 6), (8, 4, 8), (1000, 4, 8), (1000, 16, 32)],
)
def test_more_are_wanted_where_each_finds_work_for_minutes(shares: int, gpus: int, wanted: int) -> None:
    """At most twice what there is, again and again: a cluster is full before it has grown by a wrong guess."""
    work = (shares + 0.5) * WORTH_SECONDS
    assert worker_target(gpus, 99, work=work).gpu == wanted
    assert worker_target(0, gpus, work=work).cpu == wanted
    assert worker_target(gpus, 99, work=work).planned == gpus
    assert worker_target(gpus, 99, asked=3, work=work).gpu == 3, "who asks for a number gets that"


def test_gpus_that_are_gone_are_waited_for(cluster: Cluster) -> None:
    autoscaling = cluster.autoscaling()
    cluster.has = (2, 16)
    assert autoscaling.now(0.0) == WorkerTarget(2, 0, 2, 2)
    cluster.has = (0, 8)
    assert autoscaling.now(0.0) == WorkerTarget(1, 8, 8, 8), (
        "cores go on, and one worker tells an autoscaler that it wants a GPU"
    )
    cluster.has = (0, 0)
    assert autoscaling.now(0.0) == WorkerTarget(1, 0, 0, 1)
    cluster.has = (1, 8)
    assert autoscaling.now(0.0) == WorkerTarget(1, 0, 1, 1)


def test_only_a_cluster_that_may_grow_is_asked_for_more(cluster: Cluster) -> None:
    cluster.has = (0, 2)
    assert cluster.autoscaling(grows=False).now(1e6).cpu == 2
    assert cluster.autoscaling(grows=True).now(1e6).cpu == 4


def test_a_node_is_waited_for_with_one_line_and_not_for_ever(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    autoscaling = cluster.autoscaling()
    with caplog.at_level(logging.WARNING):
        for cluster.time in (0.0, 10.0, NODE_SECONDS):
            autoscaling.now(0.0)
    assert len(caplog.messages) == 1
    assert "waiting up to 30 min" in caplog.messages[0]
    cluster.time += 1
    with pytest.raises(EvaluationError, match=r"no node .* within 30 min; see `ray status`.*run the same command") as e:
        autoscaling.now(0.0)
    assert "\n" not in str(e.value)


def test_each_wait_has_its_own_time(cluster: Cluster) -> None:
    autoscaling = cluster.autoscaling()
    autoscaling.now(0.0)
    cluster.has, cluster.time = (0, 1), NODE_SECONDS
    autoscaling.now(0.0)
    cluster.has, cluster.time = (0, 0), NODE_SECONDS + 5
    autoscaling.now(0.0)
    cluster.time += NODE_SECONDS
    assert autoscaling.now(0.0).room == 0
