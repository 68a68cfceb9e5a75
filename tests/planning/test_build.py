"""The simulated build at its limits, and what it names as the bottleneck."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advntk_dist.gram.worker import Receipt
from advntk_dist.grid import TileGrid
from advntk_dist.planning import build
from advntk_dist.planning.build import COMPUTE, GOVERNS, LAST, BuildActors, StageSeconds, simulate_build, tile_pairs
from advntk_dist.planning.cluster import ASSUMED, Constants

NOTHING = {f.name: 0.0 for f in dataclasses.fields(Constants) if f.name != "sources"} | {"crowding": 1.0}
TILE = 100
ALONE = BuildActors(actors=1, nodes=1, cores=1)


def constants(**values: float) -> Constants:
    return Constants(**(NOTHING | values), sources=dict.fromkeys(NOTHING, "test"))


def seconds(grid: TileGrid, crew: BuildActors, **values: float) -> StageSeconds:
    return simulate_build(grid, 4, 0, crew, constants(**values), 1024)


def test_pairs_of_tiles_are_whole_blocks() -> None:
    grid = TileGrid.square(1000, 500)
    assert [tile_pairs(t, 500) for t in grid] == [500**2] * 3
    # Blocks of 250: of a tile on the diagonal three out of four are computed.
    assert [tile_pairs(t, 250) for t in grid] == [3 * 250**2, 4 * 250**2, 3 * 250**2]
    assert tile_pairs(TileGrid.square(600, 500).at(0, 1), 250) == 2 * 250**2


def test_one_actor_takes_the_sum_of_all_steps() -> None:
    grid = TileGrid.square(7 * TILE, TILE)
    found = seconds(
        grid, ALONE, start=3.0, stop=1.0, pair=1e-5, write_byte=1e-6, write_tile=0.01, write_share=1.0, dispatch=0.002
    )
    # The driver hands out the next tile while one is computed.
    assert found.seconds == pytest.approx(4.0 + 0.002 + 28 * (0.1 + 0.01 + 0.04))
    assert found.parts[LAST] == pytest.approx(0.0)


def test_a_write_beside_the_kernels_costs_only_the_last_one() -> None:
    grid = TileGrid.square(7 * TILE, TILE)
    found = seconds(grid, BuildActors(1, 1, 2), pair=1e-5, write_byte=1e-6, write_share=1.0)
    assert found.seconds == pytest.approx(28 * 0.1 + 0.04)


def test_the_last_tiles_leave_actors_idle() -> None:
    grid = TileGrid.square(2 * TILE, TILE)  # three tiles
    rows = [seconds(grid, BuildActors(actors, 1, 8), pair=1e-5) for actors in (1, 2, 3, 8)]
    assert [row.seconds for row in rows] == pytest.approx([0.3, 0.2, 0.2, 0.2])  # the first takes two
    assert rows[-1].bottleneck == LAST
    assert rows[0].bottleneck == COMPUTE


def test_actors_that_share_cores_gain_nothing() -> None:
    grid = TileGrid.square(20 * TILE, TILE)
    two, four = (seconds(grid, BuildActors(actors, 1, 2), pair=1e-5, worker_start=2.0) for actors in (2, 4))
    assert four.parts[COMPUTE] == pytest.approx(two.parts[COMPUTE])
    assert four.parts["start and stop of Ray"] == 2 * two.parts["start and stop of Ray"]
    crowded = seconds(grid, BuildActors(2, 1, 2), pair=1e-5, crowding=1.2)
    assert crowded.parts[COMPUTE] == pytest.approx(1.2 * two.parts[COMPUTE])


def test_one_store_serves_all() -> None:
    grid = TileGrid.square(20 * TILE, TILE)
    found = seconds(grid, BuildActors(64, 8, 64), pair=1e-6, store_byte=1e-6)
    assert found.parts["store write bandwidth"] == pytest.approx(210 * 2 * 4e4 * 1e-6)
    assert found.bottleneck == "store write bandwidth"
    links = seconds(grid, BuildActors(64, 8, 64), pair=1e-6, node_byte=1e-6)
    assert links.parts["link of a node to the store"] == pytest.approx(210 / 8 * 0.08, rel=0.1)


def test_images_double_their_nodes_each_round() -> None:
    grid, c = TileGrid.square(TILE, TILE), constants(network_byte=1.0, image_byte=0.5)
    rows = [simulate_build(grid, 4, 8, BuildActors(nodes, nodes, 1), c, 1024).seconds for nodes in (1, 2, 8, 9)]
    assert rows == [8 * 0.5, 8 * 1.5, 8 * 3.5, 8 * 4.5]


def test_more_actors_are_never_slower_until_the_bottleneck_is_shared() -> None:
    grid = TileGrid.square(40 * TILE, TILE)
    values: dict[str, float] = {"pair": 1e-5, "write_byte": 1e-6, "dispatch": 1e-3, "store_byte": 1e-8, "start": 0.1}
    rows = [seconds(grid, BuildActors(2**k, -(-(2**k) // 8), 64), **values) for k in range(10)]
    times = [row.seconds for row in rows]
    assert all(later <= before * 1.001 for before, later in itertools.pairwise(times))
    names = [row.bottleneck for row in rows]
    turned = names.index("driver dispatch")
    assert set(names[:turned]) == {COMPUTE}
    assert set(names[turned:]) == {"driver dispatch"}
    assert times[turned] / times[-1] < 2  # past it nothing is gained
    assert times[0] / times[turned - 1] > 0.6 * 2 ** (turned - 1)  # before it everything


@pytest.mark.parametrize(
    "values",
    [
        {"pair": 1e-5},
        {"dispatch": 0.02},
        {"node_byte": 1e-6},
        {"store_byte": 1e-6},
        {"write_byte": 1e-5, "pair": 1e-6},
        {"write_byte": 2e-6, "pair": 1e-5, "write_share": 0.5},
    ],
)
def test_rates_continue_what_single_tiles_give(values: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    grid = TileGrid.square(60 * TILE, TILE)
    crew = BuildActors(8, 4, 2)
    exact = seconds(grid, crew, **values)
    monkeypatch.setattr(build, "EXACT", 0)
    rates = seconds(grid, crew, **values)
    assert rates.seconds == pytest.approx(exact.seconds, rel=0.03)
    assert rates.bottleneck == exact.bottleneck


class VirtualPool:
    """Workers whose tiles take a given time, on a clock that jumps from one end of a tile to the next."""

    def __init__(self, workers: int, compute: float, write: float) -> None:
        self.ready, self.compute, self.write = list[int](), compute, write
        self.now, self.busy = 0.0, [0.0] * workers
        self.ends: list[tuple[float, int, int, int]] = []

    def start(self, gpu: bool) -> int:
        assert not gpu
        self.ready.append(len(self.ready))
        return self.ready[-1]

    def submit(self, worker: int, i: int, j: int, attempt: int) -> None:  # noqa: ARG002 - of the protocol
        self.busy[worker] = max(self.now, self.busy[worker]) + self.compute
        heapq.heappush(self.ends, (self.busy[worker] + self.write, worker, i, j))

    def poll(self, timeout: float) -> list[tuple[int, Any]]:  # noqa: ARG002 - of the protocol
        self.now, worker, i, j = heapq.heappop(self.ends)
        return [(worker, Receipt(i, j, 1, 0.0, 0.0, 0, "", 0, 0))]

    def kill(self, worker: int) -> None:  # noqa: ARG002 - of the protocol
        raise AssertionError("none hangs")


SCALES = {"start": 20.0, "pair": 1e-4, "write_byte": 3e-6, "dispatch": 0.05, "node_byte": 3e-6, "store_byte": 1e-6}
RATIOS = dict(zip(SCALES, (2.0, 2.03, 1.97, 2.11, 1.91, 2.07), strict=True))
"""Different ones, so that no two ways through a build take exactly the same time."""
SPREAD = st.fixed_dictionaries(
    {name: st.sampled_from([s * RATIOS[name] ** k for k in range(-6, 7)]) for name, s in SCALES.items()}
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(values=SPREAD, actors=st.sampled_from([1, 2, 8, 32]))
def test_the_bottleneck_is_what_helps_most_to_make_faster(values: dict[str, float], actors: int) -> None:
    grid, crew = TileGrid.square(16 * TILE, TILE), BuildActors(actors, -(-actors // 4), 64)
    whole = seconds(grid, crew, **values)

    def gains(factor: float) -> dict[str, float]:
        return {
            name: whole.seconds - seconds(grid, crew, **(values | {name: value * factor}))
            .seconds
            for name, value in values.items()
        }  # fmt: skip

    # To first order a part is what its constant is worth, on the critical path that there is.
    parts = {name: sum(whole.parts[p] for p, governs in GOVERNS.items() if name in governs) for name in values}
    slightly = gains(1 - 1e-6)
    for name, part in parts.items():
        assert slightly[name] / 1e-6 == pytest.approx(part, rel=0.02, abs=1e-3 * whole.seconds)
    # Halving may meet the next bottleneck; where the largest part is nearly all, it is still what helps most.
    if max(parts.values()) > 0.75 * whole.seconds:
        halved = gains(0.5)
        best = max(halved.values())
        named = max(halved[name] for name in GOVERNS[whole.bottleneck] if name in halved)
        runner_up = sorted(_bounds(values, grid, crew).values())[-2]
        if runner_up < 0.5 * whole.seconds:
            assert named == pytest.approx(best)


def _bounds(values: dict[str, float], grid: TileGrid, crew: BuildActors) -> dict[str, float]:
    """Seconds that each constant alone would take."""
    return {name: seconds(grid, crew, **{name: value}).seconds for name, value in values.items()}


@pytest.mark.parametrize("name", ["one", "two", "full"])
def test_builds_that_were_measured_on_a_quiet_machine(name: str) -> None:
    """Constants are those of the kernel alone; the builds of 24,000 and of 50,000 images ran on two cores."""
    recorded = json.loads((Path(__file__).parents[1] / "benchmarks" / "results" / "gram-mlp-5.json").read_text())
    pair, run, tile = recorded["kernel_seconds_a_pair"], recorded[name], recorded["tile"]
    c = constants(
        pair=pair["ntk"],
        crowding=pair["ntk, all cores busy"] / pair["ntk"],
        write_byte=recorded["one"]["write_seconds"] / (recorded["one"]["tiles"] * 4 * tile**2),
    )
    found = simulate_build(TileGrid.square(run["n"], tile), 4, 0, BuildActors(run["workers"], 1, 2), c, 1024)
    assert found.seconds == pytest.approx(run["tile_seconds"], rel=0.1)
    assert found.bottleneck == COMPUTE


def test_constants_have_sources() -> None:
    assert set(ASSUMED) < set(NOTHING)
    with pytest.raises(ValueError, match="without a source: stop"):
        dataclasses.replace(constants(), sources={n: "test" for n in NOTHING if n != "stop"})
    with pytest.raises(ValueError, match="finite and >= 0: pair"):
        constants(pair=-1.0)
    listed: dict[str, Any] = constants(pair=2.0).as_dict()
    assert listed["pair"] == {"seconds": 2.0, "source": "test"}
