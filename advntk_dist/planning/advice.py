"""What to change in a configuration or a cluster, each as one sentence with the setting that does it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from advntk_dist.gram.plan import BASE_BYTES
from advntk_dist.grid import TileGrid
from advntk_dist.planning.counts import plan_build
from advntk_dist.planning.predict import COMPUTE, IDLE, START
from advntk_dist.text import duration, size

if TYPE_CHECKING:
    from advntk_dist.planning.plan import RunPlan

TILES_A_WORKER = 4
"""Tiles a worker from which the last ones leave few cores idle."""

MANY_TILES = 20_000
"""Tiles above which files, commit records and schedules cost more than they bring."""

_NEGLIGIBLE = 0.05
_WASTED = 0.3
_SHARE = 0.3


def advise(plan: RunPlan) -> Iterator[str]:
    """Sentences on a plan, the most urgent first; none where nothing is to be said."""
    for part in (_disk, _worker_memory, _tile, _operator, _batch, _time):
        yield from part(plan)


def _disk(plan: RunPlan) -> Iterator[str]:
    need, free = plan.counts.gram.disk_bytes, plan.free_disk
    if free is not None and need > free:
        yield f"disk: the Gram matrix needs {size(need)} and {size(free)} are free; give an --out on another disk"


def _worker_memory(plan: RunPlan) -> Iterator[str]:
    config, cluster, gram = plan.config, plan.cluster, plan.counts.gram
    if gram.memory_bytes <= cluster.memory:
        return
    room = cluster.memory - 2 * gram.image_bytes
    fitting = room // gram.worker_bytes
    smaller = config.gram.tile
    while smaller > 128:
        smaller //= 2
        less = plan_build(
            config.model_copy(update={"gram": config.gram.model_copy(update={"tile": smaller})}), plan.images, 1
        )
        if gram.workers * less.worker_bytes <= room:
            break
    else:
        smaller = 0
    ways = [f"gram.tile={smaller}"] if smaller else []
    ways += [f"gram.workers={fitting * cluster.nodes}"] if fitting >= 1 else []
    what = f"memory: {gram.workers} workers and the images take {size(gram.memory_bytes)}, a node has "
    how = (
        f"set {' or '.join(ways)}"
        if ways
        else f"a worker alone takes {size(BASE_BYTES)} and more: larger nodes are needed"
    )
    yield f"{what}{size(cluster.memory)}; {how}"


def _tile(plan: RunPlan) -> Iterator[str]:
    config, prediction = plan.config, plan.prediction
    workers = plan.cluster.workers(config.gram.workers)
    tiles, n = plan.counts.gram.tiles, config.data.n_train
    if tiles > MANY_TILES:
        larger = config.gram.tile
        while len(TileGrid.square(n, larger)) > MANY_TILES:
            larger *= 2
        yield (
            f"gram.tile: {tiles:,} tiles are as many files; gram.tile={larger} makes "
            f"{len(TileGrid.square(n, larger)):,}"
        )
        return
    if tiles >= TILES_A_WORKER * workers or plan.counts.gram.pairs < 4e6:  # a small matrix is done before it matters
        return
    if prediction is not None:
        gram = prediction.parts["gram"]
        if gram.get(COMPUTE, 0.0) + gram.get(IDLE, 0.0) < _NEGLIGIBLE * prediction.total:
            return
    # d (d + 1) / 2 tiles for d tiles along a row.
    along = math.ceil((math.sqrt(8 * TILES_A_WORKER * workers + 1) - 1) / 2)
    wanted = max(128, 2 ** int(np.log2(max(1, n // along))))
    if wanted < min(config.gram.tile, n):
        yield (
            f"gram.tile: {tiles} tiles for {workers} workers leave some of them idle; gram.tile={wanted} makes "
            f"{len(TileGrid.square(n, wanted))}"
        )


def _operator(plan: RunPlan) -> Iterator[str]:
    cluster, operator = plan.cluster, plan.operator
    whole, stored = operator.whole_bytes, operator.stored_bytes
    if not operator.fits and operator.name == "memory":
        yield (
            f"solver.operator: memory needs {size(whole)} for the matrix and as much again; set solver.memory="
            f"{_gib(2 * whole)}, or solver.operator=auto"
        )
    elif not operator.fits:
        yield f"solver.operator: the nodes' memory does not hold {size(stored)} of tiles; set solver.operator=auto"
    elif operator.name == "threads" and 2 * whole <= 0.5 * cluster.memory:
        yield (
            f"operator: tiles are read from disk in each pass; solver.memory={_gib(2 * whole)} would hold the matrix "
            f"({size(whole)}) in memory"
        )
    elif operator.from_disk:
        nodes = math.ceil(stored / (0.8 * cluster.memory))
        yield (
            f"operator: each pass reads {size(stored)} from disk; {max(2, nodes)} such nodes would hold it in memory "
            "(operator resident)"
        )


def _batch(plan: RunPlan) -> Iterator[str]:
    config, counts = plan.config, plan.counts
    batch, d = config.evaluation.batch, config.data
    smallest = min(d.n_val, d.n_test)
    if batch > smallest:
        yield (
            f"evaluation.batch: {batch} is more than the {smallest} images of a part, and the rest is padding; set "
            f"evaluation.batch={smallest}"
        )
    else:
        scored = counts.select + counts.evaluate
        padding = 1 - scored.attacked / max(1, scored.attacked_batches * batch)
        if padding > _WASTED:
            yield (
                f"evaluation.batch: about {100 * padding:.0f}% of attacked batches is padding, because few images are "
                f"left over for the last of each; try evaluation.batch={max(1, batch // 2)}"
            )
    if config.train.recipe == "paper" and min(config.train.batch, d.n_val) % batch > 0:
        used = min(config.train.batch, d.n_val)
        padding = 1 - used / (-(-used // batch) * batch)
        if padding > _WASTED:
            yield (
                f"train.batch: {used} images fill {100 * (1 - padding):.0f}% of the batches of {batch} that they are "
                "attacked in; make one a multiple of the other"
            )


def _time(plan: RunPlan) -> Iterator[str]:
    config, cluster, prediction = plan.config, plan.cluster, plan.prediction
    if prediction is None:
        return
    total = max(prediction.total, 1e-9)
    share = {stage: seconds / total for stage, seconds in prediction.seconds.items()}
    curve, test = config.evaluation.curve or config.data.n_test, config.data.n_test
    if share["evaluate"] > _SHARE and total > 600 and curve > 1000:
        yield (
            f"evaluation.curve: {duration(prediction.seconds['evaluate'])} of evaluation, most of it for the curve "
            f"over {len(config.evaluation.times)} times; evaluation.curve={min(1000, test)} draws it with fewer images"
        )
    if share["select"] > _SHARE and total > 600 and len(config.evaluation.times) > 6:
        yield (
            f"evaluation.times: {duration(prediction.seconds['select'])} to choose among "
            f"{len(config.evaluation.times)} times; fewer of them take less"
        )
    if prediction.tier_left_out is not None and (wanted := config.final_tier) is not None:
        yield (
            f"evaluation.tier: tier {wanted[0]} on {wanted[1]} test images would take "
            f"{duration(prediction.tier_left_out)}, more than half of the run, which ends without it and under its own "
            f"attack alone; evaluation.tier={wanted[0]} adds it"
        )
    alone = share["train"] + share["solve"]
    if cluster.nodes > 1 and alone > 0.5:
        yield (
            f"nodes: {100 * alone:.0f}% of the time is training and solving, which run on one machine; a faster "
            "machine for the driver helps more than further nodes"
        )
    start = prediction.parts["gram"][START]
    if start > 0.5 * prediction.seconds["gram"] and cluster.nodes > 1:
        yield "nodes: most of the Gram matrix's time is the start of Ray; one node is enough for it"


def _gib(nbytes: int) -> str:
    return f"{math.ceil(nbytes / 2**30)}GiB"
