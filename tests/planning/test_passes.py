"""One pass over the matrix, on one machine and on many."""

from __future__ import annotations

import dataclasses

import pytest

from advntk_dist.config import load_config
from advntk_dist.grid import TileGrid
from advntk_dist.operators.resident import rows_sent
from advntk_dist.operators.tiled import runs
from advntk_dist.planning.build import StageSeconds
from advntk_dist.planning.cluster import Cluster, Constants
from advntk_dist.planning.passes import GOVERNS, OperatorPlan, holders, matrix_pass, operator_plan

GIB = 2**30
NAMES = [f.name for f in dataclasses.fields(Constants) if f.name != "sources"]
SOURCES = dict.fromkeys(NAMES, "test")
RATES = {"entry": 2e-9, "read_byte": 1e-9, "network_byte": 1e-9, "add_byte": 1e-10, "call": 1e-3}


def a_pass(n: int, cluster: Cluster, **values: float) -> tuple[OperatorPlan, StageSeconds]:
    config = load_config("digits", (f"data.n_train={n}", "gram.tile=2048"))
    constants = Constants(**(dict.fromkeys(NAMES, 0.0) | values), sources=SOURCES)
    operator, grid = operator_plan(config, cluster), TileGrid.square(n, 2048)
    return operator, matrix_pass(operator, grid, cluster, 10, constants)


def test_cores_share_the_arithmetic() -> None:
    for cores in (1, 2, 8):
        operator, found = a_pass(40_000, Cluster(1, cores, 0, 64 * GIB), **RATES)
        assert operator.name == "threads"
        assert found.seconds == pytest.approx(40_000**2 * 2e-9 / cores)
        assert found.bottleneck == "pass compute"


def test_a_disk_that_is_slower_than_the_cores_is_what_a_pass_takes() -> None:
    _, found = a_pass(100_000, Cluster(1, 16, 0, 16 * GIB), **RATES)
    assert found.parts == {"pass read bandwidth": pytest.approx(1225 * 2048**2 * 4 * 1e-9)}


def test_resident_tiles_cost_vectors_instead_of_reading() -> None:
    n, block = 100_000, 8 * 100_000 * 10
    sent = 80 * rows_sent(TileGrid.square(n, 2048), 8)
    assert block < sent < 4 * block, "each of 8 holders sends less than half of a product"
    operator, found = a_pass(n, Cluster(4, 8, 0, 64 * GIB, remote=True), **RATES)
    assert operator.name == "resident"
    assert found.parts == {
        "pass compute": pytest.approx(n**2 * 2e-9 / 32),
        "vectors to the nodes": pytest.approx(2 * 2 * block * 1e-9),
        "partial products to the driver": pytest.approx(3 / 4 * sent * 1e-9),
        "adding partial products": pytest.approx(sent * 1e-10),
        "calls of the holders": pytest.approx(8 * 1e-3),
    }


def test_holders_are_as_many_as_there_are_runs_of_tiles() -> None:
    for n in (2048, 20_000, 60_000):
        grid = TileGrid.square(n, 2048)
        assert holders(grid, Cluster(64, 64, 0, GIB)) == min(64 * 16, len(runs(grid)))


def test_past_some_nodes_a_pass_waits_for_the_driver() -> None:
    rows = [a_pass(200_000, Cluster(nodes, 32, 0, 256 * GIB, remote=True), **RATES)[1] for nodes in (2, 4, 16, 64)]
    assert rows[0].bottleneck == "pass compute"
    assert rows[-1].bottleneck == "partial products to the driver"
    assert rows[-1].seconds > rows[-2].seconds


@pytest.mark.parametrize("nodes", [1, 2, 8, 64])
@pytest.mark.parametrize("slow", list(RATES))
def test_the_bottleneck_is_what_helps_most_to_make_faster(nodes: int, slow: str) -> None:
    rates = RATES | {slow: 20 * RATES[slow]}
    cluster = Cluster(nodes, 16, 0, 32 * GIB, remote=True)
    _, whole = a_pass(150_000, cluster, **rates)
    gain = {
        name: whole.seconds - a_pass(150_000, cluster, **(rates | {name: value * 0.999}))[1].seconds
        for name, value in rates.items()
    }
    halved = {
        name: whole.seconds - a_pass(150_000, cluster, **(rates | {name: value / 2}))[1].seconds
        for name, value in rates.items()
    }
    parts = {name: sum(whole.parts.get(p, 0.0) for p, governs in GOVERNS.items() if name in governs) for name in rates}
    assert gain == {name: pytest.approx(0.001 * part, abs=1e-12) for name, part in parts.items()}
    if max(parts, key=parts.__getitem__) in GOVERNS[whole.bottleneck] and len(whole.parts) > 1:
        assert max(halved, key=halved.__getitem__) in GOVERNS[whole.bottleneck]
