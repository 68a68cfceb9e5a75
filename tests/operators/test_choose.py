"""The operator is chosen from the memory and the cluster there are, and can be named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from advntk_dist.errors import RequestError, StoreIncompleteError
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.view import dask_view
from advntk_dist.operators import InMemoryOperator, TiledOperator, choose, nodes, operator_for_store

N = 30
THETA = np.eye(N, dtype=np.float32)
WHOLE = THETA.nbytes
Stored = Callable[..., GramStore]


@pytest.fixture
def store(stored: Stored) -> GramStore:
    return stored(THETA, 10)


def _node(name: str, cpus: float, memory: float, alive: bool = True) -> dict[str, Any]:
    resources = {"CPU": cpus, "memory": memory}
    return {"NodeID": name, "Alive": alive, "Resources": resources, "NodeManagerAddress": f"host-{name}"}


def test_memory_where_half_of_the_budget_holds_the_matrix(store: GramStore) -> None:
    assert isinstance(operator_for_store(store, memory=2 * WHOLE), InMemoryOperator)
    assert isinstance(operator_for_store(store, memory=2 * WHOLE - 1), TiledOperator)
    assert not isinstance(operator_for_store(store, memory=2 * WHOLE - 1), InMemoryOperator)


def test_named_operators(store: GramStore) -> None:
    out_of_core = operator_for_store(store, memory=10**9, operator="threads", threads=3)
    assert "3 Dask threads" in out_of_core.description
    with pytest.raises(RequestError, match=r"solver\.memory"):
        operator_for_store(store, memory=WHOLE, operator="memory")
    with pytest.raises(RequestError, match=r"solver\.operator.*dask-on-ray"):
        operator_for_store(store, memory=WHOLE, operator="quantum")  # type: ignore[arg-type]


def test_incomplete_stores_are_refused(stored: Stored) -> None:
    for operator in ("auto", "memory", "threads", "resident"):
        with pytest.raises(StoreIncompleteError):
            operator_for_store(stored(THETA, 10, complete=False), memory=10**9, operator=operator)  # type: ignore[arg-type]


def test_seats_are_dealt_by_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = [_node("a", 16, 1e9), _node("b", 2, 1e9), _node("dead", 64, 1e12, alive=False), _node("head", 0, 1e9)]
    monkeypatch.setattr("ray.nodes", lambda: cluster)
    found = nodes.seats(100, 50)
    assert [seat.node for seat in found] == ["a"] * 4 + ["b"]
    assert [seat.threads for seat in found] == [4, 4, 4, 4, 2]
    assert [seat.node for seat in nodes.seats(100, 2)] == ["a", "b"]
    assert [seat.node for seat in nodes.seats(100, 3, exact=True)] == ["a", "a", "b"]


def test_a_cluster_whose_memory_is_too_small_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [_node("a", 4, 10e9), _node("b", 4, 1e9)])
    assert nodes.cluster_holds(int(8e9))
    assert not nodes.cluster_holds(int(9e9))
    with pytest.raises(RequestError, match=r"4\.0 GB on node host-b, which offers 0\.8 GB"):
        nodes.seats(int(8e9), 50)
    monkeypatch.setattr("ray.nodes", lambda: [])
    with pytest.raises(RequestError, match="at least one core"):
        nodes.seats(1, 1)


@pytest.mark.parametrize(("count", "memory", "resident"), [(2, 1e9, True), (1, 1e9, False), (2, 100, False)])
def test_auto_takes_resident_tiles_on_a_cluster_of_several_nodes_that_holds_them(
    store: GramStore, monkeypatch: pytest.MonkeyPatch, count: int, memory: float, resident: bool
) -> None:
    class Resident(InMemoryOperator):
        def __init__(self, store: GramStore, *, kind: str) -> None:
            super().__init__(np.asarray(dask_view(store, kind)))

    monkeypatch.setattr(choose, "_ray_is_up", lambda: True)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.nodes", lambda: [_node(str(i), 4, memory) for i in range(count)])
    monkeypatch.setattr("advntk_dist.operators.resident.ResidentOperator", Resident)
    assert isinstance(operator_for_store(store, memory=WHOLE), Resident) == resident
