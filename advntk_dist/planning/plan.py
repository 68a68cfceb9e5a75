"""The plan of a run: counts, memory, seconds and advice in one object that prints and dumps itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from advntk_dist.config import RunConfig
from advntk_dist.gram.plan import BASE_BYTES, free_disk
from advntk_dist.planning.advice import advise
from advntk_dist.planning.calibration import Calibration
from advntk_dist.planning.cluster import ASSUMED, LINKS, Cluster, Constants
from advntk_dist.planning.counts import Counts, Images, count, step_images
from advntk_dist.planning.passes import OperatorPlan, operator_plan, solver_bytes
from advntk_dist.planning.predict import STAGES, Prediction, outlook, predict
from advntk_dist.text import duration, size


@dataclass(frozen=True)
class RunPlan:
    """What a run will take.

    Attributes
    ----------
    config, images, cluster
        What is planned, and where.
    counts
        What it does.
    operator
        What multiplies with the matrix.
    driver_bytes
        Memory of the process that trains and solves, about.
    prediction
        Seconds; None where no calibration fits the cluster.
    advice
        Sentences.
    remarks
        On what the figures rest.
    """

    config: RunConfig
    images: Images
    cluster: Cluster
    counts: Counts
    operator: OperatorPlan
    driver_bytes: int
    prediction: Prediction | None
    advice: tuple[str, ...]
    remarks: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        c = self.config
        return {
            "dataset": c.data.name,
            "network": c.network.name,
            "n_train": c.data.n_train,
            "n_val": c.data.n_val,
            "n_test": c.data.n_test,
            "images": asdict(self.images),
            "cluster": asdict(self.cluster),
            "counts": self.counts.as_dict(),
            "operator": asdict(self.operator),
            "bytes": {
                "disk": self.counts.gram.disk_bytes,
                "worker": self.counts.gram.worker_bytes,
                "driver": self.driver_bytes,
            },
            "prediction": None if self.prediction is None else self.prediction.as_dict(),
            "advice": list(self.advice),
            "remarks": list(self.remarks),
        }

    def __str__(self) -> str:
        c, gram, scored = self.config, self.counts.gram, self.counts
        shape = " x ".join(map(str, self.images.shape))
        lines = [
            f"{c.data.name}, {c.network.name}: {c.data.n_train:,} training, {c.data.n_val:,} validation and "
            f"{c.data.n_test:,} test images of {shape}, {self.images.classes} classes",
            f"on          {self.cluster}",
            f"tiles       {gram.tiles:,} of {c.gram.tile} ({gram.pairs:,.0f} pairs), {size(gram.disk_bytes)} on disk",
            f"memory      {gram.workers} workers a node of at most {size(gram.worker_bytes)}, the driver about "
            f"{size(self.driver_bytes)}",
            f"operator    {self.operator.name} (matrix {size(self.operator.whole_bytes)})",
        ]
        p = self.prediction
        if p is not None:
            lines.append(
                f"passes      {p.passes['uniform']:.0f} for all finite times, {p.passes['infinity']:.0f} at "
                f"t = infinity, {p.passes['train']:.0f} in training"
            )
        steps = {name: getattr(scored, name).image_steps for name in ("select", "train", "evaluate")}
        lines.append("image-steps " + ", ".join(f"{name} {value:,}" for name, value in steps.items()))
        if p is not None:
            lines.append(f"time        {duration(p.total)}")
            lines += [f"  {stage:<10}{duration(p.seconds[stage]):>8}" for stage in STAGES]
            most = ", ".join(f"{part} of {stage} {100 * share:.0f}%" for stage, part, share in p.drivers())
            lines.append(f"most of it  {most}")
            limits = p.bottlenecks
            lines.append(f"limits      gram: {limits['gram']}; a pass: {limits['pass']}; train: {limits['train']}")
        lines += [f"advice      {sentence}" for sentence in self.advice]
        lines += [f"note        {sentence}" for sentence in self.remarks]
        return "\n".join(lines)


def plan_run(
    config: RunConfig,
    cluster: Cluster,
    *,
    calibration: Calibration | None = None,
    links: Mapping[str, tuple[float, str]] = {},
    out: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[RunPlan, Calibration]:
    """Plan a run; measures this machine unless a calibration is given.

    Parameters
    ----------
    config
        Of the run.
    cluster
        Where it will run.
    calibration
        Measured before, on such a machine, for the same kernels.
    links
        What is known of store and network, from :func:`advntk_dist.planning.cluster.links`; assumed by default.
    out
        Where the run would lie, for the free disk; unknown by default.
    say
        Called with a line before each part of a measurement.

    Returns
    -------
    plan, calibration
        The plan, and what it rests on.

    Raises
    ------
    RequestError
        If the request is impossible, or the calibration is of other kernels.
    """
    if calibration is None:
        from advntk_dist.planning.calibrate import calibrate

        measured = calibrate(config, say=say)
    else:
        calibration.require(config, "--calibration")
        measured = calibration
    fits = (measured.platform == "gpu") == (cluster.gpus > 0)
    prediction: Prediction | None = None
    if fits:
        constants = Constants.of(measured, remote=cluster.remote, given=links)
        counts, prediction = predict(config, cluster, measured, constants)
    else:
        local = -(-cluster.workers(config.gram.workers) // cluster.nodes)
        counts = count(config, measured.images, local, outlook(config, measured))
    operator = operator_plan(config, cluster)
    strength = config.evaluation.times[-1] * config.data.n_train
    free = free_disk(out.resolve()) if out is not None else None
    plan = RunPlan(
        config,
        measured.images,
        cluster,
        counts,
        operator,
        driver_bytes(config, measured.images, measured.pilot.passes(strength), operator),
        prediction,
        tuple(advise(config, measured.images, cluster, counts, operator, free, prediction)),
        tuple(_remarks(measured, cluster, fits) + _assumptions(cluster, links)),
    )
    return plan, measured


def driver_bytes(config: RunConfig, images: Images, passes: float, operator: OperatorPlan) -> int:
    """Memory of the driver: Python and JAX, images and prepared images, a batch against all of them, the solver."""
    from advntk_dist.predictor import MEMORY

    n, size_ = config.data.n_train, np.dtype(config.gram.dtype).itemsize
    pixels = math.prod(images.shape)
    per_pair = 1 if config.network.name.startswith("mlp") else images.shape[0] * images.shape[1]
    pairs = min(2 * MEMORY, 8 * config.evaluation.batch * n * per_pair * size_)
    # Floats of the training images twice, as they are and prepared, and the bytes that they are made from.
    # A training step keeps the kernel values of its images, attacked and, in cross-fit, clean.
    step = max(images for _, images in step_images(config))
    values = (1 if config.train.recipe == "paper" else 2) * step * n * size_
    solver = solver_bytes(config, images.classes, passes, operator)
    return BASE_BYTES + (2 * size_ + 1) * n * pixels + pairs + values + solver


def _assumptions(cluster: Cluster, given: Mapping[str, tuple[float, str]]) -> list[str]:
    if not cluster.remote:
        return []
    unknown = [name for name in LINKS if name not in given]
    found = [f"{ASSUMED[name][1].removeprefix('assumed: ')} ({LINKS[name][0]})" for name in unknown]
    return [f"assumed of the cluster: {', '.join(found)}"] if found else []


def _remarks(measured: Calibration, cluster: Cluster, fits: bool) -> list[str]:
    found = []
    if not fits:
        kind = "a GPU" if cluster.gpus else "CPUs alone"
        found.append(
            f"no times: they were measured on a {measured.platform.upper()}, and the cluster has {kind}; run "
            "`advntk plan ... --save-calibration FILE` on one of its nodes and give it as --calibration FILE"
        )
    if measured.pilot.stand_in:
        found.append("the images are not on this machine: passes and accuracies are those of a stand-in of their shape")
    if max(measured.load) > 1.5 * measured.cores:
        found.append(
            f"the machine was busy while it was measured (load {max(measured.load):.1f} on {measured.cores} cores): "
            "times are as under that load"
        )
    if fits and cluster.remote:
        found.append(
            "cores and GPUs of the cluster are taken to be like those that were measured, and linear in number"
        )
    return found
