"""A Gram build on many actors, simulated tile by tile: how long it takes, and what it waits for.

A simulation of events and not a formula, because what decides at the ends is order: the last tiles leave actors idle,
an actor holds two tiles at once (:data:`advntk_dist.gram.schedule.DEPTH`) and one when few are left, the driver hands
out one at a time, and writes queue for the link of a node and for the store. Each event waits for the latest of those
before it; the chain of latest ones from the last tile back to the start is the critical path, and its seconds by
resource are the parts of the result: to first order what a faster resource would save. Past :data:`EXACT` tiles the
ends no longer matter, and rates are enough: then the slowest resource is all of it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass

from advntk_dist.gram.build import DEPTH
from advntk_dist.gram.tiles import block_edge
from advntk_dist.grid import Tile, TileGrid
from advntk_dist.planning.cluster import Constants

EXACT = 20_000
"""Tiles up to which every one is simulated."""

START, IMAGES, DISPATCH, COMPUTE, LAST, COPY, WRITE, LINK, STORE = (
    "start and stop of Ray",
    "images to the actors",
    "driver dispatch",
    "kernels",
    "idle at the last tiles",
    "copies from the device",
    "writing in the actors",
    "link of a node to the store",
    "store write bandwidth",
)
GOVERNS = {
    START: ("start", "worker_start", "stop"),
    IMAGES: ("image_byte", "network_byte"),
    DISPATCH: ("dispatch",),
    COMPUTE: ("pair", "crowding"),
    LAST: ("pair", "crowding"),
    COPY: ("copy_byte",),
    WRITE: ("write_byte", "write_tile", "write_share"),
    LINK: ("node_byte",),
    STORE: ("store_byte",),
}
"""Constants that each part of a build grows with."""


@dataclass(frozen=True, order=True)
class _Costs:
    """Seconds of the steps of one tile."""

    compute: float
    copy: float
    write: float
    link: float
    store: float


def simulate_build(
    grid: TileGrid, itemsize: int, image_bytes: int, crew: BuildActors, constants: Constants, edge_limit: int
) -> StageSeconds:
    """Predict the build of a symmetric Gram store.

    Parameters
    ----------
    grid
        Its tiles.
    itemsize
        Bytes of an entry.
    image_bytes
        Float images, which each node gets.
    crew
        Who computes.
    constants
        Seconds a unit.
    edge_limit
        Largest block of pairs that is computed at once; tiles are padded to whole blocks.
    """
    c = constants
    start = c.start + c.worker_start * crew.shared + c.stop
    hops = math.ceil(math.log2(crew.nodes)) if crew.nodes > 1 else 0  # each round doubles the nodes that have them
    images = image_bytes * (c.image_byte + hops * c.network_byte)
    costs = _CostsOf(grid, itemsize, crew, c, edge_limit)
    tiles = _exact(grid, crew, c, costs) if len(grid) <= EXACT else _rates(grid, crew, c, costs)
    return StageSeconds({START: start, IMAGES: images, **tiles})


def tile_pairs(t: Tile, edge: int) -> int:
    """Pairs that are computed for a tile: whole blocks, of one on the diagonal only those that do not mirror others."""
    down, across = (-(-side // edge) for side in t.shape)
    return (down * (down + 1) // 2 if t.on_diagonal else down * across) * edge**2


class _CostsOf:
    """Costs of the tiles of a grid, of which there are few kinds."""

    def __init__(self, grid: TileGrid, itemsize: int, crew: BuildActors, c: Constants, edge_limit: int) -> None:
        tile = min(grid.tile, grid.rows)
        self.edge, self.crew, self.c = block_edge(tile, edge_limit), crew, c
        self.nbytes = tile**2 * itemsize  # a ragged tile is stored padded
        self.pair = c.pair * crew.crowding(c.crowding) * crew.shared

    def __call__(self, t: Tile) -> _Costs:
        c, nbytes = self.c, self.nbytes
        write = c.write_tile + nbytes * c.write_byte * self.crew.shared
        return _Costs(
            tile_pairs(t, self.edge) * self.pair,
            nbytes * c.copy_byte,
            write,
            2 * nbytes * c.node_byte,
            2 * nbytes * c.store_byte,
        )


_AT_LINK, _AT_STORE, _DONE = range(3)


def _exact(grid: TileGrid, crew: BuildActors, c: Constants, costs: _CostsOf) -> dict[str, float]:
    events, tiles, left = Events(), iter(grid), len(grid)
    driver = store = 0
    busy, links = [0] * crew.actors, [0] * crew.nodes
    held, asked = [0] * crew.actors, 0
    # Moments to come: (time, what happens, actor, tie-breaker, event, cost of the tile); queues are served in order.
    coming: list[tuple[float, int, int, int, int, _Costs]] = []
    compute, none = 0.0, _Costs(0.0, 0.0, 0.0, 0.0, 0.0)
    for actor in range(crew.actors):
        coming += [(0.0, _DONE, actor, slot, 0, none) for slot in range(DEPTH)]
    number = DEPTH
    while coming:
        _, what, actor, _, event, cost = heapq.heappop(coming)
        number += 1
        node = actor % crew.nodes
        if what == _AT_LINK:
            event = links[node] = events.after(event, links[node], LINK, cost.link)
            heapq.heappush(coming, (events.time[event], _AT_STORE, actor, number, event, cost))
            continue
        if what == _AT_STORE:
            event = store = events.after(event, store, STORE, cost.store)
            heapq.heappush(coming, (events.time[event], _DONE, actor, number, event, cost))
            continue
        held[actor] -= event > 0
        asked = max(asked, actor + 1)
        # As the ledger does: two tiles while there are plenty, one at the end.
        if left == 0 or (held[actor] and left < asked):
            continue
        cost = costs(next(tiles))
        held[actor], left = held[actor] + 1, left - 1
        driver = events.after(event, driver, DISPATCH, c.dispatch)
        event = events.after(driver, busy[actor], COMPUTE, cost.compute)
        event = busy[actor] = events.after(event, event, COPY, cost.copy)
        on_core = cost.write * c.write_share if crew.full else 0.0
        if on_core:
            event = busy[actor] = events.after(event, event, WRITE, on_core)
        event = events.after(event, event, WRITE, cost.write - on_core)
        compute += cost.compute
        heapq.heappush(coming, (events.time[event], _AT_LINK, actor, number, event, cost))
    parts = dict.fromkeys((DISPATCH, COMPUTE, LAST, COPY, WRITE, LINK, STORE), 0.0)
    for resource, seconds in events.path():
        parts[resource] += seconds
    even = compute / crew.actors
    parts[LAST] = max(0.0, parts[COMPUTE] - even)
    parts[COMPUTE] -= parts[LAST]
    return parts


def _rates(grid: TileGrid, crew: BuildActors, c: Constants, costs: _CostsOf) -> dict[str, float]:
    cost, count = costs(grid.at(0, 1)), len(grid)
    on_core = cost.write * c.write_share if crew.full else 0.0
    computed = {COMPUTE: cost.compute, COPY: cost.copy, WRITE: on_core}
    whole = computed | {WRITE: cost.write, LINK: cost.link, STORE: cost.store}
    ways = [
        {DISPATCH: c.dispatch},
        {LINK: cost.link / crew.nodes},
        {STORE: cost.store},
        {what: seconds / crew.actors for what, seconds in computed.items()},
        {what: seconds / (DEPTH * crew.actors) for what, seconds in whole.items()},  # both tiles are on their way
    ]
    slowest = max(ways, key=lambda way: sum(way.values()))
    parts = dict.fromkeys((DISPATCH, COMPUTE, LAST, COPY, WRITE, LINK, STORE), 0.0)
    for what, seconds in slowest.items():
        parts[what] += count * seconds
    for what, seconds in whole.items():  # and the last tile after all others
        parts[LAST if what == COMPUTE else what] += seconds
    return parts


@dataclass(frozen=True)
class StageSeconds:
    """Seconds, and what they are spent on."""

    parts: dict[str, float]

    @property
    def seconds(self) -> float:
        """All parts together."""
        return sum(self.parts.values())

    @property
    def bottleneck(self) -> str:
        """The largest part."""
        return max(self.parts, key=lambda name: self.parts[name])


@dataclass(frozen=True)
class BuildActors:
    """Actors of a build, spread evenly.

    Attributes
    ----------
    actors, nodes
        How many.
    cores
        Of a node.
    gpus
        Whether actors compute on GPUs; otherwise on the cores.
    """

    actors: int
    nodes: int
    cores: int
    gpus: bool = False

    @property
    def on_node(self) -> int:
        """Actors of the fullest node."""
        return -(-self.actors // self.nodes)

    @property
    def shared(self) -> float:
        """Actors that share a core, at least 1; at most 1 with GPUs."""
        return 1.0 if self.gpus else max(1.0, self.on_node / self.cores)

    @property
    def full(self) -> bool:
        """Whether an actor has no core beside the one that computes."""
        return not self.gpus and self.on_node >= self.cores

    def crowding(self, most: float) -> float:
        """Factor of the kernels' time with so many cores at work."""
        if self.gpus or self.cores < 2:
            return 1.0
        return 1 + (most - 1) * min(1.0, (self.on_node - 1) / (self.cores - 1))


class Events:
    """Moments, each with the one it waited for and what it then did."""

    def __init__(self) -> None:
        self.time, self.before, self.what, self.seconds = [0.0], [0], [""], [0.0]

    def after(self, first: int, second: int, what: str, seconds: float) -> int:
        """The end of something that begins when both others are past."""
        latest = first if self.time[first] >= self.time[second] else second
        self.time.append(self.time[latest] + seconds)
        self.before.append(latest)
        self.what.append(what)
        self.seconds.append(seconds)
        return len(self.time) - 1

    def path(self) -> Iterator[tuple[str, float]]:
        """The critical path, from its end."""
        event = max(range(len(self.time)), key=self.time.__getitem__)
        while event:
            yield self.what[event], self.seconds[event]
            event = self.before[event]
