"""`advntk run`: every stage in order, from wherever the last start got to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from advntk_dist.config import RunConfig
from advntk_dist.environment import environment
from advntk_dist.errors import StoreDamagedError
from advntk_dist.pipeline import stages
from advntk_dist.pipeline.context import Problem, RunContext
from advntk_dist.pipeline.directory import RunDirectory, require_same_images
from advntk_dist.pipeline.finished import finished_run, read_outcomes, read_results
from advntk_dist.pipeline.stages import OpenRun
from advntk_dist.pipeline.tier import decided_tier, end_with_tier
from advntk_dist.progress import Display
from advntk_dist.report import Examples, ReportInputs, TrainingHistory, extremes_of
from advntk_dist.results import schema, sealed
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
        opened = OpenRun.at(folder, problem, shown, address)
        with opened.context as context:
            events, net = context.events, problem.net.spec
            events.write("run begins")
            shown.say(
                f"{net.name} (W_std {net.W_std:g}, b_std {net.b_std:g}, {net.activation}) on {problem.dataset.name}: "
                f"{config.data.n_train:,} training images -> {folder.root}"
            )
            for line in problem.duplicates.lines():
                shown.say(line)
            results = _work(opened)
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
    config = folder.stored_config()
    if not folder.results.exists():
        raise folder.unfinished()
    shown = display or Display(quiet=True)
    opened = OpenRun.at(folder, Problem(config), shown)
    with folder.claimed(config, reading=True), opened.context:
        try:
            results = read_results(folder, config)[0]
        except StoreDamagedError as error:
            if read_outcomes(folder, config) is None:
                raise
            shown.say(f"writing the results again, as they are damaged: {error}")
            results = None
        return _write(opened, results or _results(opened, decided_tier(opened)))


def _work(opened: OpenRun) -> dict[str, Any]:
    context = opened.context
    stages.gram(context)
    stages.uniform(opened)
    stages.spectrum(opened)
    for line in stages.near_equal_images(opened).lines():
        context.display.say(line)
    chosen, _ = stages.select(opened)
    stages.train(opened)
    stages.curve(opened)
    methods = stages.methods(opened, chosen, context.config.attack)
    stages.radius_curves(opened, chosen)
    stages.examples(opened)
    _write(opened, _results(opened, end_with_tier(opened, chosen, methods)))
    results = context.folder.read_results()
    assert results is not None
    return results


def _write(opened: OpenRun, results: dict[str, Any]) -> Location:
    """Write the report, then results.json, from what is committed; returns the place of the report.

    The results are written last: a run that has them is finished. Those that are stored and the same stay.
    """
    from advntk_dist.report.page import replace_file

    page = _report(opened, results, stages.train(opened))
    replace_file(opened.context.folder.results, sealed.as_text(schema.RunResults, results).encode())
    return page


def _results(opened: OpenRun, tier: dict[str, Any]) -> dict[str, Any]:
    """What results.json says."""
    context, config, folder = opened.context, opened.context.config, opened.context.folder
    outcomes = read_outcomes(folder, config)
    if outcomes is None:
        raise StoreDamagedError(
            f"{folder.evaluation}: outcomes are missing; `advntk run {folder.config} --out {folder.root}` computes "
            "them again"
        )
    store = opened.coefficients.solver.store()
    status = store.status()
    return {
        **context.description(),
        **outcomes.as_dict(config),
        "tier": tier,
        "gram": {
            "backend": context.problem.net.backend.name,
            "dtype": config.gram.dtype,
            "tile": store.tile,
            "tiles": status.total,
            "bytes": status.bytes,
        },
        "solver": {"tolerance": config.solver.tolerance, "solves": opened.coefficients.solves()},
        "duplicates": context.problem.duplicates.as_dict(),
        "near_equal": stages.near_equal_images(opened).as_dict(),
        "seconds": context.events.seconds(),
        "peak_bytes": context.events.peak_bytes(),
        "environment": environment(),
    }


def _report(opened: OpenRun, results: dict[str, Any], training: TrainingRun) -> Location:
    context, problem = opened.context, opened.context.problem
    context.display.say("writing the report")
    twins, guesses = stages.examples(opened)
    m = len(twins)
    inputs = ReportInputs(
        results=schema.RunResults.model_validate(results),
        config_toml=context.config.to_toml(),
        training=_history(context.config, training),
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
        spectrum=stages.spectrum(opened),
        y_test=problem.test.y,
        facts=_provenance(context),
    )
    from advntk_dist.report import write_report

    return write_report(inputs, context.folder.root)


def _provenance(context: RunContext) -> tuple[tuple[str, str], ...]:
    """When the run was first started, and which data it had: the same however often its report is written."""
    rows = [("Data fingerprint", context.problem.dataset.fingerprint[:12])]
    if (began := context.events.began()) is not None:
        rows.insert(0, ("Started", datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%d %H:%M UTC")))
    return tuple(rows)


def _history(config: RunConfig, training: TrainingRun) -> TrainingHistory:
    columns = ("loss", "grad_norm", "robust", "varpi_mean", "varpi_max")
    train, n = config.train, config.data.n_train
    cycle = min(train.folds, n) * (2 if train.validation else 1) if train.recipe == "cross-fit" else 1
    return TrainingHistory(**{c: np.array([getattr(r, c) for r in training.history]) for c in columns}, cycle=cycle)
