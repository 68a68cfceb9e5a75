"""The machines that a plan is made for, and what of the Gram matrix their memory holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import psutil
from pydantic import ByteSize, TypeAdapter, ValidationError

from advntk_dist.config import RunConfig
from advntk_dist.environment import usable_cores
from advntk_dist.errors import RequestError
from advntk_dist.gram.plan import BASE_BYTES
from advntk_dist.grid import TileGrid
from advntk_dist.operators.choose import MATRIX_SHARE
from advntk_dist.operators.placement import MEMORY_SHARE
from advntk_dist.planning.counts import Images, step_images
from advntk_dist.solve.memory_budget import MAX_RANK

LINKS = {"node_link": "--node-link", "shared_store": "--shared-store", "network": "--network"}
"""The rates of a cluster that only its user can know, and the options that give them."""

CACHE_SHARE = 0.6
"""Of a machine's memory: a matrix on disk that fits this much is read from the page cache after the first pass."""


@dataclass(frozen=True)
class Cluster:
    """Equal machines.

    Attributes
    ----------
    nodes
        Number of machines.
    cpus, gpus, memory
        Cores, GPUs and bytes of memory of each machine.
    remote
        Whether it is reached by ``--address``, so that evaluation also goes to Ray actors.
    node_link, shared_store, network
        Gigabytes per second between a node and the store, of the store for all nodes together, and into or out of a
        node; None where that is not known.
    """

    nodes: int
    cpus: int
    gpus: int
    memory: int
    remote: bool = False
    node_link: float | None = None
    shared_store: float | None = None
    network: float | None = None

    @property
    def actors(self) -> int:
        """Ray actors that a build starts: one a GPU, or one a core where there is none."""
        return self.nodes * (self.gpus or self.cpus)

    def workers(self, asked: int | None) -> int:
        """Actors of a stage for which so many are asked."""
        return asked or self.actors

    def workers_of_a_node(self, asked: int | None) -> int:
        """Actors of the fullest node."""
        return -(-self.workers(asked) // self.nodes)

    def evaluators(self, config: RunConfig) -> int:
        """Actors that share attacked batches; 0 where the driver attacks them itself, with all its cores."""
        if config.evaluation.workers is not None:
            return config.evaluation.workers
        return self.actors if self.remote or self.gpus > 1 else 0

    @property
    def unknown_links(self) -> tuple[str, ...]:
        """Options of the rates that a run on several nodes depends on and nobody has given."""
        if self.nodes == 1:
            return ()
        return tuple(option for name, option in LINKS.items() if getattr(self, name) is None)

    def __str__(self) -> str:
        each = f"{self.cpus} cores, {f'{self.gpus} GPUs, ' if self.gpus else ''}{self.memory / 2**30:.0f} GiB"
        return f"{self.nodes} x ({each})" if self.remote else f"this machine ({each})"


def described(
    nodes: int | None = None,
    cpus: int | None = None,
    gpus: int | None = None,
    memory: str | None = None,
    *,
    node_link: float | None = None,
    shared_store: float | None = None,
    network: float | None = None,
) -> Cluster:
    """Make the :class:`Cluster` of the options that are given; what is left out is as on this machine.

    With none of ``nodes``, ``cpus``, ``gpus`` and ``memory`` it is this machine alone.

    Raises
    ------
    RequestError
        If a number is impossible, or the memory cannot be read; the message names the option.
    """
    for option, value, least in (("--nodes", nodes, 1), ("--cpus", cpus, 1), ("--gpus", gpus, 0)):
        if value is not None and value < least:
            raise RequestError(f"{option} is {value}; it must be at least {least}")
    for option, rate in zip(LINKS.values(), (node_link, shared_store, network), strict=True):
        if rate is not None and not 0 < rate < math.inf:
            raise RequestError(f"{option} is {rate:g}; it must be GB/s, more than 0")
    return Cluster(
        nodes or 1,
        cpus or usable_cores(),
        gpus or 0,
        psutil.virtual_memory().total if memory is None else _bytes(memory),
        any(value is not None for value in (nodes, cpus, gpus, memory)),
        node_link,
        shared_store,
        network,
    )


def _bytes(text: str) -> int:
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        size = 0
    if size < 1:
        raise RequestError(f"--memory {text}: give the memory of a node, such as 64GiB")
    return size


@dataclass(frozen=True)
class OperatorPlan:
    """The operator of a run.

    Attributes
    ----------
    name
        "memory", "threads", "dask-on-ray" or "resident".
    whole_bytes, stored_bytes
        Bytes of the full matrix, and of its stored half.
    from_disk
        Whether each pass reads the disk.
    fits
        Whether the operator, if it was asked for by name, has the memory it needs.
    cores
        Number of cores that share a pass.
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


def driver_bytes(config: RunConfig, images: Images, passes: float, operator: OperatorPlan) -> int:
    """Memory of the driver: Python and JAX, images and prepared images, a batch against all of them, the solver."""
    from advntk_dist.predictor import MEMORY

    n, size = config.data.n_train, np.dtype(config.gram.dtype).itemsize
    pixels = math.prod(images.shape)
    per_pair = 1 if config.network.name.startswith("mlp") else images.shape[0] * images.shape[1]
    pairs = min(2 * MEMORY, 8 * config.evaluation.batch * n * per_pair * size)
    # Floats of the training images twice, as they are and prepared, and the bytes that they are made from.
    # A training step keeps the kernel values of its images, attacked and, in cross-fit, clean.
    step = max(images for _, images in step_images(config))
    values = (1 if config.train.recipe == "paper" else 2) * step * n * size
    return BASE_BYTES + (2 * size + 1) * n * pixels + pairs + values + _solver_bytes(config, images, passes, operator)


def _solver_bytes(config: RunConfig, images: Images, passes: float, operator: OperatorPlan) -> int:
    """Memory of the solver in the driver: the matrix where it holds it, two bases, and blocks of vectors."""
    n, classes = config.data.n_train, images.classes
    held = operator.whole_bytes if operator.name == "memory" else 0
    bases = 2 * 2 * 8 * n * classes * int(np.ceil(passes))
    sketch = 8 * 8 * n * min(MAX_RANK, n // 4)
    return min(int(config.solver.memory), held + max(bases, sketch) + 16 * 8 * n * classes)
