"""The plan of a run: counts, memory, seconds and advice in one object that prints and dumps itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from advntk_dist.config import RunConfig
from advntk_dist.gram.plan import free_disk
from advntk_dist.planning.advice import advise
from advntk_dist.planning.calibration import Calibration
from advntk_dist.planning.cluster import Cluster, OperatorPlan, driver_bytes, operator_plan
from advntk_dist.planning.counts import Counts, Images, count
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
    free_disk
        Bytes that are free where the run will lie; None where that is not known.
    prediction
        Seconds; None where no calibration fits the cluster.
    remarks
        On what the figures rest.
    """

    config: RunConfig
    images: Images
    cluster: Cluster
    counts: Counts
    operator: OperatorPlan
    driver_bytes: int
    free_disk: int | None
    prediction: Prediction | None
    remarks: tuple[str, ...]

    @property
    def advice(self) -> list[str]:
        """What to change, the most urgent first."""
        return list(advise(self))

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
            "advice": self.advice,
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
                f"passes      {p.passes['uniform']:.0f} for all finite times, {p.passes['infinity']:.0f} more at "
                f"t = infinity, {p.passes['train']:.0f} in training"
            )
        steps = {name: getattr(scored, name).image_steps for name in ("select", "train", "evaluate")}
        lines.append("image-steps " + ", ".join(f"{name} {value:,}" for name, value in steps.items()))
        if p is not None and not p.unknown:
            lines.append(f"time        {duration(p.total)}")
            lines += [f"  {stage:<10}{duration(p.seconds[stage]):>8}" for stage in STAGES]
            most = ", ".join(f"{part} of {stage} {100 * share:.0f}%" for stage, part, share in p.drivers())
            lines.append(f"most of it  {most}")
            limits = p.bottlenecks
            lines.append(f"limits      gram: {limits['gram']}; a pass: {limits['pass']}; train: {limits['train']}")
        elif p is not None:
            lines.append(
                f"time        more than about {_roughly(p.total)}: nothing was measured on such a cluster, and its "
                f"links are left out; give their GB/s as {', '.join(p.unknown)}"
            )
        lines += [f"advice      {sentence}" for sentence in self.advice]
        lines += [f"note        {sentence}" for sentence in self.remarks]
        return "\n".join(lines)


def plan_run(
    config: RunConfig,
    cluster: Cluster,
    *,
    calibration: Calibration | None = None,
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
        counts, prediction = predict(config, cluster, measured)
    else:
        workers = cluster.workers_of_a_node(config.gram.workers)
        counts = count(config, measured.images, workers, outlook(config, measured))
    operator = operator_plan(config, cluster)
    strength = config.evaluation.times[-1] * config.data.n_train
    plan = RunPlan(
        config,
        measured.images,
        cluster,
        counts,
        operator,
        driver_bytes(config, measured.images, measured.pilot.passes(strength), operator),
        None if out is None else free_disk(out.resolve()),
        prediction,
        tuple(_remarks(measured, cluster, fits)),
    )
    return plan, measured


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


def _roughly(seconds: float) -> str:
    """Seconds in words with one digit, for what is known no better."""
    unit, name = (3600, "h") if seconds >= 3600 else (60, "min") if seconds >= 60 else (1, "s")
    return f"{float(f'{seconds / unit:.1g}'):,.0f} {name}"
