"""The operator is chosen from the memory and the cluster there are, and can be named."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advntk_dist.errors import RequestError, StoreIncompleteError
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.view import dask_view
from advntk_dist.operators import InMemoryOperator, TiledOperator, choose, operator_for_store, placement
from advntk_dist.operators.placement import place_store

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


def test_holders_are_placed_by_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = [_node("a", 16, 1e9), _node("b", 2, 1e9), _node("dead", 64, 1e12, alive=False), _node("head", 0, 1e9)]
    monkeypatch.setattr("ray.nodes", lambda: cluster)
    found = placement.place_holders(100, 50)
    assert [p.node for p in found] == ["a"] * 4 + ["b"]
    assert [p.threads for p in found] == [4, 4, 4, 4, 2]
    assert [p.node for p in placement.place_holders(100, 2)] == ["a", "b"]
    assert [p.node for p in placement.place_holders(100, 3, exact=True)] == ["a", "a", "b"]


def test_nodes_of_unequal_memory_get_unequal_numbers_of_equal_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [_node("a", 4, 9.5e9), _node("b", 4, 1e9)])
    found = [p.node for p in placement.place_holders(int(8e9), 50)]
    share = 8e9 / len(found)
    assert share * found.count("a") <= placement.MEMORY_SHARE * 9.5e9
    assert 0 < share * found.count("b") <= placement.MEMORY_SHARE * 1e9
    assert [p.node for p in placement.place_holders(int(1e9), 50)] == ["a", "b"], "as the cores want it where that fits"
    assert [p.node for p in placement.place_holders(int(7e9), 1)] == ["a"], "one holder goes where it has room"


@settings(deadline=None)
@given(
    memory=st.lists(st.floats(0, 1e12), min_size=1, max_size=6),
    cores=st.lists(st.integers(1, 64), min_size=6, max_size=6),
    nbytes=st.integers(1, 10**12),
    most=st.integers(1, 300),
)
def test_no_node_is_given_more_than_it_has(memory: list[float], cores: list[int], nbytes: int, most: int) -> None:
    there = [_node(str(k), cores[k], room) for k, room in enumerate(memory)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray.nodes", lambda: there)
        try:
            found = [p.node for p in placement.place_holders(nbytes, most)]
        except RequestError:
            assert placement.MEMORY_SHARE * max(memory) < nbytes, "one node alone would have held it all"
            return
    assert 1 <= len(found) <= most
    for k, room in enumerate(memory):
        assert found.count(str(k)) * nbytes / len(found) <= placement.MEMORY_SHARE * room


def test_a_cluster_whose_memory_is_too_small_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [_node("a", 4, 8.9e9), _node("b", 4, 1e9)])
    with pytest.raises(RequestError, match=r"4\.0 GB on node host-b, which offers 0\.8 GB"):
        placement.place_holders(int(8e9), 50)
    monkeypatch.setattr("ray.nodes", lambda: [_node("a", 4, 10e9), _node("b", 4, 1e9)])
    with pytest.raises(RequestError, match=r"4\.0 GB on node host-b, which offers 0\.8 GB"):
        placement.place_holders(int(8e9), 2, exact=True)
    monkeypatch.setattr("ray.nodes", lambda: [])
    with pytest.raises(RequestError, match="at least one core"):
        placement.place_holders(1, 1)


@pytest.mark.parametrize(
    ("memory", "resident"),
    [([1e9, 1e9], True), ([1e9], False), ([100, 100], False), ([1e9, 100], True)],
    ids=["two nodes", "one node", "too small", "unequal"],
)
def test_auto_takes_resident_tiles_on_a_cluster_of_several_nodes_that_holds_them(
    store: GramStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    memory: list[float],
    resident: bool,
) -> None:
    class Resident(InMemoryOperator):
        def __init__(self, store: GramStore, *, kind: str) -> None:
            super().__init__(np.asarray(dask_view(store, kind)))

    monkeypatch.setattr(choose, "_ray_is_up", lambda: True)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.nodes", lambda: [_node(str(i), 4, room) for i, room in enumerate(memory)])
    monkeypatch.setattr("advntk_dist.operators.resident.ResidentOperator", Resident)
    with caplog.at_level(logging.WARNING):
        assert isinstance(operator_for_store(store, memory=WHOLE), Resident) == resident
    said = [text for text in caplog.messages if "each pass reads the matrix from its store" in text]
    assert len(said) == (len(memory) > 1 and not resident), "one line where nodes are there, and of no use"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray.nodes", lambda: [_node("a", 4, 100), _node("b", 4, 100)])
        with pytest.raises(RequestError, match="resident tiles need"):
            place_store(store)
