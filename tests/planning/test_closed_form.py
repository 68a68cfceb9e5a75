"""A build and a pass over the matrix in closed form: at their limits, beside measured builds, and on many nodes."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advntk_dist.config import load_config
from advntk_dist.grid import TileGrid
from advntk_dist.kernels.compiled import block_edge
from advntk_dist.operators.resident import rows_sent
from advntk_dist.operators.tiled import runs
from advntk_dist.planning.calibration import UnitCosts
from advntk_dist.planning.cluster import Cluster, operator_plan
from advntk_dist.planning.predict import (
    COMPUTE,
    IDLE,
    LINK,
    START,
    STORE,
    Parts,
    build_pairs,
    build_seconds,
    holders,
    largest,
    pass_seconds,
)
from tests.planning.conftest import RESULTS

GIB = 2**30
TILE = 100
NOTHING = UnitCosts(**dict.fromkeys((f.name for f in dataclasses.fields(UnitCosts)), 0.0))


def build(along: int, workers: int, cluster: Cluster, **costs: float) -> Parts:
    """A build of so many tiles along a row, whose entries have four bytes."""
    grid = TileGrid.square(along * TILE, TILE)
    return build_seconds(grid, 4, workers, cluster, dataclasses.replace(NOTHING, **costs), 1024)


def machine(cpus: int, nodes: int = 1, **rates: float) -> Cluster:
    return Cluster(nodes, cpus, 0, 64 * GIB, nodes > 1, **rates)


@given(n=st.integers(1, 3000), tile=st.integers(1, 700), limit=st.sampled_from([32, 64, 256, 1024]))
def test_pairs_of_a_build_are_those_of_the_blocks_of_its_tiles(n: int, tile: int, limit: int) -> None:
    tile = min(n, max(tile, n // 20))
    edge, blocks = block_edge(tile, limit), 0
    for t in TileGrid.square(n, tile):
        down, across = (-(-side // edge) for side in t.shape)
        blocks += down * (down + 1) // 2 if t.on_diagonal else down * across
    assert build_pairs(n, tile, limit) == blocks * edge**2


def test_one_worker_takes_the_sum_of_the_slower_step() -> None:
    pace = {"start": 3.0, "stop": 1.0, "pair": 1e-5, "write_byte": 1e-6}
    assert build(7, 1, machine(1), **pace) == {START: 4.0, COMPUTE: pytest.approx(28 * 0.1), IDLE: 0.0}
    slow = build(7, 1, machine(1), **(pace | {"write_byte": 1e-5}))
    assert sum(slow.values()) == pytest.approx(4.0 + 28 * 0.4)
    assert largest(slow) == "writing in the actors"


def test_the_last_tiles_leave_workers_idle() -> None:
    rows = [build(2, workers, machine(8), pair=1e-5) for workers in (1, 2, 3, 8)]  # three tiles
    assert [sum(row.values()) for row in rows] == pytest.approx([0.3, 0.2, 0.1, 0.1])
    assert [largest(row) for row in rows] == [COMPUTE, COMPUTE, COMPUTE, IDLE]


def test_workers_that_share_cores_gain_nothing() -> None:
    two, four = (build(20, workers, machine(2), pair=1e-5, start=2.0) for workers in (2, 4))
    assert four[COMPUTE] == pytest.approx(two[COMPUTE])
    assert four[START] == 2 * two[START]


def test_what_all_wait_for_sets_the_pace() -> None:
    nbytes = 210 * 4 * TILE**2
    store = build(20, 64, machine(64, 8, shared_store=1e-3), pair=1e-6)
    assert store == {START: 0.0, STORE: pytest.approx(2 * nbytes * 1e-6)}
    links = build(20, 64, machine(64, 8, node_link=1e-3), pair=1e-6)
    assert links == {START: 0.0, LINK: pytest.approx(2 * nbytes / 8 * 1e-6)}
    unknown = build(20, 64, machine(64, 8), pair=1e-6)
    assert largest(unknown) == COMPUTE


def test_more_workers_are_never_slower_until_what_is_shared_bounds_them() -> None:
    rows = [build(40, 2**k, machine(8, -(-(2**k) // 8), shared_store=0.1), pair=1e-5, start=0.1) for k in range(10)]
    times = [sum(row.values()) for row in rows]
    assert all(later <= before * 1.001 for before, later in itertools.pairwise(times))
    names = [largest(row) for row in rows]
    turned = names.index(STORE)
    assert set(names[:turned]) == {COMPUTE}
    assert set(names[turned:]) == {STORE}
    assert times[0] / times[turned - 1] > 0.6 * 2 ** (turned - 1)


@pytest.mark.parametrize("name", ["one", "two", "full"])
def test_builds_that_were_measured_on_a_quiet_machine(name: str) -> None:
    """Unit costs are those of the kernel and of writing alone; 24,000 and 50,000 images were built on two cores."""
    recorded = json.loads((RESULTS / "gram-mlp-5.json").read_text())
    pair, run, tile = recorded["kernel_seconds_a_pair"], recorded[name], recorded["tile"]
    costs = dataclasses.replace(
        NOTHING,
        pair=pair["ntk" if run["workers"] == 1 else "ntk, all cores busy"],
        write_byte=recorded["one"]["write_seconds"] / (recorded["one"]["tiles"] * 4 * tile**2),
    )
    found = build_seconds(TileGrid.square(run["n"], tile), 4, run["workers"], machine(2), costs, 1024)
    assert sum(found.values()) == pytest.approx(run["tile_seconds"], rel=0.1)
    assert largest(found) == COMPUTE


def a_pass(n: int, cluster: Cluster, entry: float = 2e-9, read_byte: float = 1e-9) -> tuple[str, Parts]:
    """The operator of a run, and one of its passes with ten vectors."""
    config = load_config("digits", (f"data.n_train={n}", "gram.tile=2048"))
    operator = operator_plan(config, cluster)
    return operator.name, pass_seconds(operator, TileGrid.square(n, 2048), cluster, 10, entry, read_byte)


def test_cores_share_the_arithmetic_of_a_pass() -> None:
    for cores in (1, 2, 8):
        name, found = a_pass(40_000, machine(cores))
        assert name == "threads"
        assert found == {"pass compute": pytest.approx(40_000**2 * 2e-9 / cores)}


def test_a_disk_that_is_slower_than_the_cores_is_what_a_pass_takes() -> None:
    _, found = a_pass(100_000, Cluster(1, 16, 0, 16 * GIB))
    assert found == {"pass read bandwidth": pytest.approx(1225 * 2048**2 * 4 * 1e-9)}


def test_resident_tiles_cost_vectors_instead_of_reading() -> None:
    n, block = 100_000, 8 * 100_000 * 10
    sent = 80 * rows_sent(TileGrid.square(n, 2048), 8)
    assert block < sent < 4 * block, "each of 8 holders sends less than half of a product"
    name, found = a_pass(n, machine(8, 4, network=1.0))
    assert name == "resident"
    assert found == {
        "pass compute": pytest.approx(n**2 * 2e-9 / 32),
        "vectors to the nodes": pytest.approx(2 * 2 * block * 1e-9),
        "partial products to the driver": pytest.approx(3 / 4 * sent * 1e-9),
    }


def test_holders_are_as_many_as_there_are_runs_of_tiles() -> None:
    for n in (2048, 20_000, 60_000):
        grid = TileGrid.square(n, 2048)
        assert holders(grid, Cluster(64, 64, 0, GIB)) == min(64 * 16, len(runs(grid)))


def test_past_some_nodes_a_pass_waits_for_the_driver() -> None:
    rows = [a_pass(200_000, Cluster(nodes, 32, 0, 256 * GIB, True, network=1.0))[1] for nodes in (2, 4, 16, 64)]
    assert largest(rows[0]) == "pass compute"
    assert largest(rows[-1]) == "partial products to the driver"
    assert sum(rows[-1].values()) > sum(rows[-2].values())
