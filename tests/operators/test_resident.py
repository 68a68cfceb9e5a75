"""Resident tiles survive the loss of their holders."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from advntk_dist.errors import RequestError, SolverError, StoreDamagedError
from advntk_dist.gram.store import GramStore
from advntk_dist.operators import operator_for_store
from advntk_dist.operators.placement import Placement, place_again
from advntk_dist.operators.resident import ResidentOperator

pytestmark = pytest.mark.usefixtures("ray_cluster")

N, TILE = 50, 8
_FACTOR = np.random.default_rng(1).standard_normal((N, N))
THETA = _FACTOR @ _FACTOR.T / N
V = np.random.default_rng(2).standard_normal((N, 3))
Stored = Callable[..., GramStore]


def test_two_holders_one_dies_one_hangs(stored: Stored) -> None:
    with ResidentOperator(stored(THETA, TILE), holders=2, patience=5.0) as operator:
        held = [info.details["tiles"] for info in operator.holders.values()]
        assert sum(held) == 28
        assert max(held) - min(held) <= 2, "both hold about as much"
        before = operator.matmat(V)
        np.testing.assert_allclose(before, THETA @ V, atol=1e-13)
        os.kill(operator.holders[0].pid, signal.SIGKILL)
        np.testing.assert_array_equal(operator.matmat(V), before)
        assert operator.replaced == 1
        hung = operator.holders[1].pid
        os.kill(hung, signal.SIGSTOP)
        try:
            np.testing.assert_array_equal(operator.matmat(V), before)
        finally:
            with contextlib.suppress(ProcessLookupError):  # Ray has killed it, most likely
                os.kill(hung, signal.SIGKILL)
        assert operator.replaced == 2
    operator.close()


def test_a_damaged_tile_is_named(stored: Stored) -> None:
    store = stored(THETA, TILE)
    path = store.chunk_path("ntk", 2, 3)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(StoreDamagedError, match=r"tile \(2, 3\) of ntk is damaged"):
        operator_for_store(store, memory=1, operator="resident")


def _node(name: str, cpus: int, memory: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": True, "NodeManagerAddress": name, "Resources": {"CPU": cpus, "memory": memory}}


def test_a_lost_holder_goes_to_the_node_with_most_room(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [_node("a", 8, 1000), _node("b", 4, 2000)]
    monkeypatch.setattr("ray.nodes", lambda: there)
    taken = [Placement("a", 4), Placement("b", 4)]
    assert place_again(taken, 500, avoid="gone") == Placement("b", 2)
    assert place_again(taken, 300, avoid="b") == Placement("a", 4)
    assert place_again(taken, 500, avoid="b") == Placement("b", 2), "a has no room for a second one"


def test_a_holder_that_finds_no_place_ends_the_product(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    with ResidentOperator(stored(THETA, TILE), holders=1) as operator:
        os.kill(operator.holders[0].pid, signal.SIGKILL)
        monkeypatch.setattr("ray.nodes", lambda: [_node("other", 4, 100)])
        with pytest.raises(SolverError, match=r"none of the 1 that are left has room.*run the same command again"):
            operator.matmat(V)


def test_ray_must_run(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(RequestError, match="needs a running Ray"):
        ResidentOperator(stored(THETA, TILE))
