"""One pass over the Gram matrix, on one machine or with tiles resident on many: how long it takes, and what decides."""

from __future__ import annotations

import math

from advntk_dist.grid import TileGrid
from advntk_dist.operators.nodes import CORES_A_HOLDER
from advntk_dist.operators.products import RUN_TILES
from advntk_dist.operators.shares import rows_sent
from advntk_dist.planning.cluster import Cluster
from advntk_dist.planning.constants import Constants
from advntk_dist.planning.crew import Stage
from advntk_dist.planning.operators import OperatorPlan

COMPUTE, READ, SCATTER, GATHER, ADD, CALLS = (
    "pass compute",
    "pass read bandwidth",
    "vectors to the nodes",
    "partial products to the driver",
    "adding partial products",
    "calls of the holders",
)
GOVERNS = {
    COMPUTE: ("entry",),
    READ: ("read_byte",),
    SCATTER: ("network_byte",),
    GATHER: ("network_byte",),
    ADD: ("add_byte",),
    CALLS: ("call",),
}
"""Constants that each part of a pass grows with."""


def holders(grid: TileGrid, cluster: Cluster) -> int:
    """Actors that hold resident tiles: one for every four cores, as far as there are runs of tiles for them."""
    wanted = cluster.nodes * max(1, -(-cluster.cpus // CORES_A_HOLDER))
    across = grid.shape[1]
    return min(wanted, sum(-(-(across - i) // RUN_TILES) for i in range(across)))


def matrix_pass(
    operator: OperatorPlan,
    grid: TileGrid,
    cluster: Cluster,
    columns: int,
    constants: Constants,
    entry: float | None = None,
) -> Stage:
    """Predict one product Theta V.

    On one machine a core computes while the disk reads, and the slower of them counts. Resident tiles are multiplied
    where they are; before that every node gets the vectors in both memory orders, and after it every holder sends back
    the rows of the product that its tiles touch, which the driver adds up: these follow each other.

    Parameters
    ----------
    operator
        Of the run.
    grid
        Tiles of the matrix.
    cluster
        Where it runs.
    columns
        Of V.
    constants
        Seconds a unit.
    entry
        Seconds an entry on one core, where that is not ``constants.entry``.
    """
    c, n = constants, grid.rows
    compute = (c.entry if entry is None else entry) * n**2 / operator.cores
    if operator.name != "resident":
        read = c.read_byte * operator.stored_bytes if operator.from_disk else 0.0
        return Stage({READ: read} if read > compute else {COMPUTE: compute})
    count, block = holders(grid, cluster), 8 * n * columns
    hops = math.ceil(math.log2(cluster.nodes)) if cluster.nodes > 1 else 0
    sent = 8 * rows_sent(grid, count) * columns
    return Stage(
        {
            COMPUTE: compute * max(1.0, operator.cores / (CORES_A_HOLDER * count)),
            SCATTER: hops * 2 * block * c.network_byte,
            GATHER: sent * (cluster.nodes - 1) / cluster.nodes * c.network_byte,
            ADD: sent * c.add_byte,
            CALLS: count * c.call,
        }
    )
