"""`advntk run`: every stage in order, from wherever the last start got to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from advntk_dist.config import RunConfig
from advntk_dist.environment import environment
from advntk_dist.errors import RequestError, StoreDamagedError
from advntk_dist.pipeline.events import EventLog
from advntk_dist.pipeline.images import require_same_images
from advntk_dist.pipeline.near_images import near_equal_images
from advntk_dist.pipeline.outcomes import finished_run, read_outcomes, read_results
from advntk_dist.pipeline.problem import Problem
from advntk_dist.pipeline.rundir import RunDirectory
from advntk_dist.pipeline.stages import Stages
from advntk_dist.pipeline.tier import decided_tier, end_with_tier
from advntk_dist.progress import Display
from advntk_dist.report import DegenerationCurve, Examples, ReportInputs, TrainingHistory, extremes_of
from advntk_dist.results import schema
from advntk_dist.results.schema import ADV_NTK
from advntk_dist.storage.paths import Location
from advntk_dist.training import TrainingRun


@dataclass(frozen=True)
class RunOutcome:
    """A finished run: its directory, its results, and whether anything had to be done."""

    folder: Location
    results: dict[str, Any]
    worked: bool


def run(
    config: RunConfig, out: str | Location, *, address: str | None = None, display: Display | None = None
) -> RunOutcome:
    """Do the whole job, or what is left of it: Gram matrix, selection, training, evaluation, report.

    Parameters
    ----------
    config
        What to run.
    out
        Run directory, a path or an ``s3://`` or ``gs://`` URL; made if it is not there.
    address
        Ray cluster, None for this machine.
    display
        Where to show progress.

    Raises
    ------
    RequestError
        If the request is impossible.
    StoreError
        If stored data are damaged, or belong to another configuration.
    """
    folder, shown = RunDirectory.at(out), display or Display()
    problem = Problem(config)  # a wrong request fails before anything is written
    with folder.claimed(config):
        results = finished_run(folder, config)
        if results is not None:
            require_same_images(folder, problem.dataset)
            return RunOutcome(folder.root, results, worked=False)
        events = EventLog(folder.events)
        events.write("run begins")
        net = problem.net.spec
        shown.say(
            f"{net.name} (W_std {net.W_std:g}, b_std {net.b_std:g}, {net.activation}) on {problem.dataset.name}: "
            f"{config.data.n_train:,} training images -> {folder.root}"
        )
        for line in problem.duplicates.lines():
            shown.say(line)
        with Stages(problem, folder, events, shown, address) as stages:
            results = _work(stages)
        events.write("run ends")
    return RunOutcome(folder.root, results, worked=True)


def rebuild_report(out: str | Location, *, display: Display | None = None) -> Location:
    """Write report.html and its plots again from what a finished run has committed, and results.json if it is damaged.

    Raises
    ------
    RequestError
        If the run is not finished.
    """
    folder = RunDirectory.at(out)
    stages = finished_stages(folder, display or Display(quiet=True))
    with folder.claimed(stages.config, reading=True), stages:
        try:
            results = read_results(folder, stages.config)[0]
        except StoreDamagedError as error:
            if read_outcomes(folder, stages.config) is None:
                raise
            stages.display.say(f"writing the results again, as they are damaged: {error}")
            results = None
        return _write(stages, results or _results(stages, decided_tier(stages)))


def finished_stages(folder: RunDirectory, display: Display) -> Stages:
    """The stages of a finished run, for looking at what it stored or attacking it again.

    Raises
    ------
    RequestError
        If the run is not finished.
    """
    config = folder.stored_config()
    if not folder.results.exists():
        raise RequestError(f"{folder.root}: the run is not finished; `advntk run {folder.config} --out {folder.root}`")
    return Stages(Problem(config), folder, EventLog(folder.events), display, None)


def _work(stages: Stages) -> dict[str, Any]:
    stages.gram()
    stages.uniform()
    stages.spectrum()
    for line in near_equal_images(stages).lines():
        stages.display.say(line)
    chosen, _ = stages.select()
    stages.train()
    stages.curve()
    methods = stages.methods(chosen, stages.config.attack)
    stages.examples()
    _write(stages, _results(stages, end_with_tier(stages, chosen, methods)))
    results = stages.folder.read_results()
    assert results is not None
    return results


def _write(stages: Stages, results: dict[str, Any]) -> Location:
    """Write the report, then results.json, from what is committed; returns the place of the report.

    The results are written last: a run that has them is finished. Those that are stored and the same stay.
    """
    from advntk_dist.report.page import replace_file

    page = _report(stages, results, stages.train())
    replace_file(stages.folder.results, schema.as_text(schema.RunResults, results).encode())
    return page


def _results(stages: Stages, tier: dict[str, Any]) -> dict[str, Any]:
    """What results.json says."""
    config, folder = stages.config, stages.folder
    outcomes = read_outcomes(folder, config)
    if outcomes is None:
        raise StoreDamagedError(
            f"{folder.evaluation}: outcomes are missing; `advntk run {folder.config} --out {folder.root}` computes "
            "them again"
        )
    status = stages.store.status()
    return {
        **stages.description(),
        **outcomes.as_dict(config),
        "tier": tier,
        "gram": {
            "backend": stages.problem.net.backend.name,
            "dtype": config.gram.dtype,
            "tile": stages.store.tile,
            "tiles": status.total,
            "bytes": status.bytes,
        },
        "solver": {"tolerance": config.solver.tolerance, "solves": stages.solves()},
        "duplicates": stages.problem.duplicates.as_dict(),
        "near_equal": near_equal_images(stages).as_dict(),
        "seconds": stages.events.seconds(),
        "peak_bytes": stages.events.peak_bytes(),
        "environment": environment(),
    }


def _report(stages: Stages, results: dict[str, Any], training: TrainingRun) -> Location:
    stages.display.say("writing the report")
    problem = stages.problem
    curve, methods = results["curve"], results["methods"]
    twins, guesses = stages.examples()
    m = len(twins)
    inputs = ReportInputs(
        results=results,
        config_toml=stages.config.to_toml(),
        curve=DegenerationCurve(
            times=np.array(curve["times"]),
            clean=np.array([row["clean"] for row in curve["test"]]),
            robust=np.array([row["robust"] for row in curve["test"]]),
            clean_ntk=methods["ntk"]["clean"],
            robust_ntk=methods["ntk"]["robust"],
            chosen_t=methods["early_stopped"]["t"],
            n_test=curve["test"][0]["n_test"],
        ),
        training=_history(stages, training),
        varpi=training.varpi,
        y_train=problem.train.y,
        classes=problem.dataset.classes,
        examples=Examples(
            clean=problem.test.x[:m],
            adversarial=twins,
            labels=problem.test.y[:m],
            predicted_clean=guesses[:, 0].astype(int),
            predicted_adversarial=guesses[:, 1].astype(int),
            method=ADV_NTK,
        ),
        extremes=extremes_of(problem.train.x, training.varpi, problem.train.y),
        spectrum=stages.spectrum(),
        y_test=problem.test.y,
        facts=_provenance(stages),
    )
    from advntk_dist.report import write_report

    return write_report(inputs, stages.folder.root)


def _provenance(stages: Stages) -> tuple[tuple[str, str], ...]:
    """When the run was first started, and which data it had: the same however often its report is written."""
    rows = [("Data fingerprint", stages.problem.dataset.fingerprint[:12])]
    if (began := stages.events.began()) is not None:
        rows.insert(0, ("Started", datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%d %H:%M UTC")))
    return tuple(rows)


def _history(stages: Stages, training: TrainingRun) -> TrainingHistory:
    columns = ("loss", "grad_norm", "robust", "varpi_mean", "varpi_max")
    train, n = stages.config.train, stages.config.data.n_train
    cycle = min(train.folds, n) * (2 if train.validation else 1) if train.recipe == "cross-fit" else 1
    return TrainingHistory(**{c: np.array([getattr(r, c) for r in training.history]) for c in columns}, cycle=cycle)
