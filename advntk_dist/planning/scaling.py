"""A run on 1 to many GPUs: build, pass and training by the model of `advntk plan`, and what bounds each of them.

Nothing is modelled here: builds are simulated event by event (:mod:`advntk_dist.planning.build`), passes and training
are arithmetic (:mod:`advntk_dist.planning.passes`, :mod:`advntk_dist.planning.predict`), because their steps follow
each other. This only varies the number of images and of GPUs, and lets the tile be what builds fastest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import ByteSize

from advntk_dist.config import RunConfig
from advntk_dist.grid import TileGrid
from advntk_dist.planning.advice import MANY_TILES
from advntk_dist.planning.build import BuildActors, simulate_build
from advntk_dist.planning.calibration import Calibration
from advntk_dist.planning.cluster import Cluster, Constants
from advntk_dist.planning.counts import Images, plan_build
from advntk_dist.planning.passes import operator_plan
from advntk_dist.planning.plan import driver_bytes
from advntk_dist.planning.predict import predict
from advntk_dist.text import size

TILES = (2048, 4096, 8192, 16384)
"""Edges among which a build chooses."""

SOLVER_SHARE = 0.25
"""Of a node's memory that is set as solver.memory."""


@dataclass(frozen=True)
class GpuNodes:
    """Shape of the machines: GPUs of a whole node, and what comes with each GPU."""

    gpus: int = 8
    cpus_a_gpu: int = 16
    memory_a_gpu: int = 128 * 2**30

    def cluster(self, gpus: int) -> Cluster:
        """As many nodes as so many GPUs need, the last of them full as well."""
        each = min(gpus, self.gpus)
        return Cluster(-(-gpus // self.gpus), each * self.cpus_a_gpu, each, each * self.memory_a_gpu, remote=True)


@dataclass(frozen=True)
class ScalingPoint:
    """What is predicted for n images on some GPUs.

    Attributes
    ----------
    n, gpus, tile
        Training images, GPUs (one actor each), and the tile that builds fastest.
    gram_seconds, pass_seconds, train_seconds
        Of the build, of one pass over the matrix, and of training by the recipe of the configuration.
    passes
        Of all training steps together.
    operator
        What multiplies with the matrix.
    storage_bytes, worker_bytes, driver_bytes
        On disk, and the memory of an actor and of the driver.
    bottlenecks
        By stage.
    parts
        Seconds by stage and part.
    notes
        What does not fit, and where the prediction goes beyond what was measured.
    """

    n: int
    gpus: int
    tile: int
    gram_seconds: float
    pass_seconds: float
    train_seconds: float
    passes: float
    operator: str
    storage_bytes: int
    worker_bytes: int
    driver_bytes: int
    bottlenecks: dict[str, str]
    parts: dict[str, dict[str, float]]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def scaling_table(
    config: RunConfig,
    sizes: Iterable[int],
    gpus: Iterable[int],
    calibration: Calibration,
    constants: Constants,
    nodes: GpuNodes = GpuNodes(),
) -> Iterator[ScalingPoint]:
    """Predict every number of images on every number of GPUs.

    Parameters
    ----------
    config
        Of the run; its training images and tile are replaced.
    sizes, gpus
        Numbers of training images, and of GPUs.
    calibration, constants
        Measured on, or transferred to, one of the GPUs: :func:`on_gpu`.
    nodes
        Shape of the machines.
    """
    counts = tuple(gpus)
    for n in sizes:
        for count in counts:
            yield predict_point(config, n, nodes.cluster(count), calibration, constants)


def predict_point(
    config: RunConfig, n: int, cluster: Cluster, calibration: Calibration, constants: Constants
) -> ScalingPoint:
    """Predict n images on one cluster."""
    images = calibration.images
    memory = ByteSize(int(SOLVER_SHARE * cluster.memory))
    solver = config.solver.model_copy(update={"memory": memory})
    data = config.data.model_copy(update={"n_train": n})
    sized = config.model_copy(update={"data": data, "solver": solver})
    tile = fastest_tile(sized, images, cluster, calibration, constants)
    sized = sized.model_copy(update={"gram": config.gram.model_copy(update={"tile": tile})})
    counts, found = predict(sized, cluster, calibration, constants)
    operator = operator_plan(sized, cluster)
    pilot, needed = calibration.pilot, found.passes["train"] / max(1, 2 * config.train.steps)
    driver = driver_bytes(sized, images, needed, operator)
    notes = []
    if driver > cluster.memory:
        notes.append(f"the driver needs {size(driver)}, a node has {size(cluster.memory)}")
    if counts.gram.memory_bytes > cluster.memory:
        notes.append(f"the actors of a node need {size(counts.gram.memory_bytes)}, it has {size(cluster.memory)}")
    if needed > 0.5 * pilot.whole.n / images.classes:
        notes.append(f"passes are a lower bound: the pilot's {pilot.whole.n} images allow no more")
    return ScalingPoint(
        n,
        cluster.nodes * cluster.gpus,
        tile,
        found.seconds["gram"],
        sum(found.a_pass.values()),
        found.seconds["train"],
        found.passes["train"],
        operator.name,
        counts.gram.disk_bytes,
        counts.gram.worker_bytes,
        driver,
        {stage: found.bottlenecks[stage] for stage in ("gram", "pass", "train")},
        {"gram": found.parts["gram"], "pass": found.a_pass, "train": found.parts["train"]},
        tuple(notes),
    )


def fastest_tile(
    config: RunConfig, images: Images, cluster: Cluster, calibration: Calibration, constants: Constants
) -> int:
    """The tile of :data:`TILES` whose build is the shortest and whose actors fit a node."""
    n, itemsize = config.data.n_train, np.dtype(config.gram.dtype).itemsize
    crew = BuildActors(cluster.actors, cluster.nodes, cluster.cpus, cluster.gpus > 0)
    found: dict[int, float] = {}
    for tile in TILES:
        grid = TileGrid.square(n, min(tile, n))
        if len(grid) > MANY_TILES and tile != TILES[-1]:
            continue
        gram = config.gram.model_copy(update={"tile": tile})
        plan = plan_build(config.model_copy(update={"gram": gram}), images, crew.on_node)
        if plan.memory_bytes > cluster.memory and found:
            continue
        stage = simulate_build(grid, itemsize, plan.image_bytes, crew, constants, calibration.edge_limit)
        found[tile] = stage.seconds
    return min(found, key=lambda tile: (found[tile], tile))


def on_gpu(calibration: Calibration, batch: int, value: float, gradient: float, copy_byte: float) -> Calibration:
    """A calibration of a machine without GPUs as it would be with one.

    Parameters
    ----------
    calibration
        Of the machine; what its cores, disk and solves do stays.
    batch
        Images that are attacked at once.
    value, gradient
        Seconds that a GPU takes for a pair: the kernel, and the kernel with its input gradient.
    copy_byte
        Seconds in which a byte comes from the GPU.
    """
    pairs = batch * calibration.rows
    return dataclasses.replace(
        calibration,
        platform="gpu",
        gpus=1,
        pair=value,
        query=pairs * value,
        step=pairs * gradient,
        block=calibration.edge_limit**2 * (value + 4 * copy_byte),
    )
