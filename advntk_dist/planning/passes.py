"""Which operator a run gets, and how long one pass over the Gram matrix takes with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from advntk_dist.config import RunConfig
from advntk_dist.grid import TileGrid
from advntk_dist.operators.choose import MATRIX_SHARE
from advntk_dist.operators.placement import CORES_A_HOLDER, MEMORY_SHARE
from advntk_dist.operators.resident import rows_sent
from advntk_dist.operators.tiled import RUN_TILES
from advntk_dist.planning.build import StageSeconds
from advntk_dist.planning.cluster import Cluster, Constants
from advntk_dist.solve.memory_budget import MAX_RANK

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
) -> StageSeconds:
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
        return StageSeconds({READ: read} if read > compute else {COMPUTE: compute})
    count, block = holders(grid, cluster), 8 * n * columns
    hops = math.ceil(math.log2(cluster.nodes)) if cluster.nodes > 1 else 0
    sent = 8 * rows_sent(grid, count) * columns
    return StageSeconds(
        {
            COMPUTE: compute * max(1.0, operator.cores / (CORES_A_HOLDER * count)),
            SCATTER: hops * 2 * block * c.network_byte,
            GATHER: sent * (cluster.nodes - 1) / cluster.nodes * c.network_byte,
            ADD: sent * c.add_byte,
            CALLS: count * c.call,
        }
    )


CACHE_SHARE = 0.6
"""Of a machine's memory: a matrix on disk that fits this much is read from the page cache after the first pass."""


@dataclass(frozen=True)
class OperatorPlan:
    """The operator of a run.

    Attributes
    ----------
    name
        "memory", "threads", "dask-on-ray" or "resident".
    whole_bytes, stored_bytes
        Of the full matrix, and of its stored half.
    from_disk
        Whether each pass reads the disk.
    fits
        Whether the operator, if it was asked for by name, has the memory it needs.
    cores
        Cores that share a pass.
    """

    name: str
    whole_bytes: int
    stored_bytes: int
    from_disk: bool
    fits: bool
    cores: int


def operator_plan(config: RunConfig, cluster: Cluster) -> OperatorPlan:
    """What :func:`advntk_dist.operators.operator_for_store` will take on a cluster."""
    n, size = config.data.n_train, np.dtype(config.gram.dtype).itemsize
    tile = min(config.gram.tile, n)
    whole, stored = n * n * size, len(TileGrid.square(n, tile)) * tile * tile * size
    in_memory = whole <= MATRIX_SHARE * int(config.solver.memory)
    in_cluster = stored <= MEMORY_SHARE * cluster.nodes * cluster.memory
    name, fits = config.solver.operator, True
    if name == "auto":
        spread = cluster.nodes > 1 and in_cluster
        name = "memory" if in_memory else "resident" if spread else "threads"
    elif name == "memory":
        fits = in_memory
    elif name == "resident":
        fits = in_cluster
    cores = cluster.cpus * (cluster.nodes if name in ("resident", "dask-on-ray") else 1)
    from_disk = name in ("threads", "dask-on-ray") and stored > CACHE_SHARE * cluster.memory
    return OperatorPlan(name, whole, stored, from_disk, fits, cores)


def solver_bytes(config: RunConfig, classes: int, passes: float, operator: OperatorPlan) -> int:
    """Memory of the solver in the driver: the matrix where it holds it, two bases, and blocks of vectors."""
    n = config.data.n_train
    held = operator.whole_bytes if operator.name == "memory" else 0
    bases = 2 * 2 * 8 * n * classes * int(np.ceil(passes))
    sketch = 8 * 8 * n * min(MAX_RANK, n // 4)
    return min(int(config.solver.memory), held + max(bases, sketch) + 16 * 8 * n * classes)
