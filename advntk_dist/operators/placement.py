"""Nodes of a Ray cluster, and how resident tiles are spread over them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from advntk_dist.errors import RequestError, SolverError
from advntk_dist.operators.tiled import runs

if TYPE_CHECKING:
    from advntk_dist.gram.store import GramStore

CORES_A_HOLDER = 4
"""A holder's threads share one interpreter, which keeps up with about this many."""

FINEST = 8
"""Largest number of holders, in multiples of what the cores make of use, to suit nodes of unequal memory."""

MEMORY_SHARE = 0.8
"""Share of the memory that a node offers to Ray which resident tiles may take."""


@dataclass(frozen=True)
class Placement:
    """Where a holder of resident tiles runs: a node by its identifier, and the threads that it has there."""

    node: str
    threads: int


def alive_nodes() -> list[dict[str, Any]]:
    """Nodes of the cluster that have cores, in a fixed order."""
    nodes: list[dict[str, Any]] = ray.nodes()
    able = [node for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    return sorted(able, key=lambda node: str(node["NodeID"]))


def place_store(store: GramStore, holders: int | None = None) -> list[Placement]:
    """Placements of the holders of a store, so many or by default as many as the nodes' cores and memory make of use.

    Raises
    ------
    RequestError
        If the memory of the nodes does not take the tiles.
    """
    most = len(runs(store.grid))
    return place_holders(matrix_bytes(store), min(holders or most, most), exact=bool(holders))


def matrix_bytes(store: GramStore) -> int:
    """Memory of the stored half as it is held, ragged tiles padded, in bytes."""
    return len(store.grid) * store.tile**2 * store.dtype.itemsize


def place_holders(nbytes: int, most: int, *, exact: bool = False) -> list[Placement]:
    """Placements on all nodes of holders that divide ``nbytes`` of tiles evenly.

    Parameters
    ----------
    nbytes
        Bytes of all tiles.
    most
        Largest number of holders that is of use.
    exact
        Make it that many, dealt over the nodes in turn; otherwise one for every four cores of a node. Where the memory
        of one is too small for that, there are more holders, of smaller parts, on those that have more.

    Raises
    ------
    RequestError
        If there is no node, or the memory of one is too small for its part, however small the parts.
    """
    nodes = alive_nodes()
    if not nodes:
        raise RequestError("solver.operator: resident needs a Ray node with at least one core; see `ray status`")
    wanted = [max(1, -(-int(node["Resources"]["CPU"]) // CORES_A_HOLDER)) for node in nodes]
    if exact:
        wanted = [len(range(place, most, len(nodes))) for place in range(len(nodes))]
    while sum(wanted) > most:
        wanted[wanted.index(max(wanted))] -= 1
    if not exact:
        wanted = _dealt_by_memory(nbytes, most, wanted, [_memory(node) for node in nodes])
    each = -(-nbytes // sum(wanted))
    for node, count in zip(nodes, wanted, strict=True):
        if count * each > _memory(node):
            raise RequestError(
                f"solver.operator: resident tiles need {count * each / 1e9:.1f} GB on node "
                f"{node['NodeManagerAddress']}, which offers {_memory(node) / 1e9:.1f} GB; add nodes, or use another "
                "solver.operator"
            )
    return [
        Placement(str(node["NodeID"]), max(1, int(node["Resources"]["CPU"]) // count))
        for node, count in zip(nodes, wanted, strict=True)
        for _ in range(count)
    ]


def _dealt_by_memory(nbytes: int, most: int, wanted: list[int], memory: list[int]) -> list[int]:
    """Holders a node: as wanted where equal parts fit, else as many and as dealt as fit, else as wanted."""
    for holders in range(sum(wanted), min(most, FINEST * sum(wanted)) + 1):
        able = [room // -(-nbytes // holders) for room in memory]
        if sum(able) >= holders:
            counts = [min(pair) for pair in zip(wanted, able, strict=True)]
            while sum(counts) < holders:
                emptiest = max(range(len(counts)), key=lambda k: able[k] - counts[k])
                counts[emptiest] += 1
            return counts
    return wanted


def place_again(others: list[Placement], part: int, *, avoid: str) -> Placement:
    """A placement for a holder that cannot stay where it was: on the node that has most memory left.

    Parameters
    ----------
    others
        Placements of the other holders.
    part
        Bytes of one holder's tiles.
    avoid
        Node where the holder was; it stays there only if no other has room.

    Raises
    ------
    SolverError
        If no node has room left.
    """
    nodes = {str(node["NodeID"]): node for node in alive_nodes()}
    held = Counter(other.node for other in others)
    room = {name: _memory(node) - held[name] * part for name, node in nodes.items()}
    able = [name for name in room if room[name] >= part]
    if not able:
        raise SolverError(
            f"resident tiles: a node is lost, and none of the {len(nodes)} that are left has room for the "
            f"{part / 1e9:.3g} GB of tiles that it held (largest room: {max([0, *room.values()]) / 1e9:.3g} GB); add "
            "nodes, or use another solver.operator, then run the same command again: it goes on from what is committed"
        )
    best = max(able, key=lambda name: (name != avoid, room[name]))
    return Placement(best, max(1, int(nodes[best]["Resources"]["CPU"]) // (held[best] + 1)))


def _memory(node: dict[str, Any]) -> int:
    return int(MEMORY_SHARE * node["Resources"].get("memory", 0))
