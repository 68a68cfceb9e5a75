"""Which operator a run will choose for its products, and the memory that it takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from advntk_dist.config import RunConfig
from advntk_dist.grid import TileGrid
from advntk_dist.operators.choose import MATRIX_SHARE
from advntk_dist.operators.nodes import MEMORY_SHARE
from advntk_dist.planning.cluster import Cluster
from advntk_dist.solve.memory_budget import MAX_RANK

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
