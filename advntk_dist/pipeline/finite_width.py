"""`advntk finite-width`: trials over width and seed, the paper's baseline, the infinite-width methods beside them."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.config import IDENTITY_FREE, RunConfig, difference, parse_as
from advntk_dist.config.finite_width import FiniteWidthConfig
from advntk_dist.environment import environment
from advntk_dist.errors import RequestError, StoreDamagedError, StoreMismatchError
from advntk_dist.finite.adversarial_training import TrainingPoint, committed_points, evaluation_steps, read_points
from advntk_dist.finite.summary import closed_form, flow_summary, method_rows, training_summary
from advntk_dist.finite.trials import Trial, flow_records, flow_trial, run_trials, training_trial
from advntk_dist.pipeline.context import Problem, RunContext
from advntk_dist.pipeline.directory import RunDirectory, parse_stored
from advntk_dist.pipeline.finished import read_results
from advntk_dist.pipeline.run import RunOutcome, run
from advntk_dist.progress import Display
from advntk_dist.results import schema, sealed
from advntk_dist.storage import Records
from advntk_dist.storage.paths import Location


class FiniteRunDirectory(RunDirectory):
    """The directory of a finite-width run: config.toml has its two sections more."""

    kind = schema.FiniteWidthResults

    @property
    def remedy(self) -> str:
        """How results.json is written again where it is damaged."""
        return "remove it and run the same command again, which computes nothing that is committed"

    def stored_config(self) -> FiniteWidthConfig:
        """The configuration that the directory belongs to; errors as :meth:`RunDirectory.stored_config`."""
        if not self.config.is_file():
            raise RequestError(f"{self.root}: not a run directory; start one with `advntk finite-width`")

        def parse(text: str, where: str) -> FiniteWidthConfig:
            if "flow" not in tomllib.loads(text):
                raise RequestError(f"{self.root}: a directory of `advntk run`; give finite-width another --out")
            return parse_as(FiniteWidthConfig, text, where=where)

        return parse_stored(self.config, parse)

    def _gives_way(self, config: RunConfig, stored: RunConfig) -> bool:  # noqa: ARG002
        return False


def run_finite_width(
    config: FiniteWidthConfig,
    out: str | Location,
    *,
    infinite: str | Location | None = None,
    address: str | None = None,
    display: Display | None = None,
) -> RunOutcome:
    """Do the whole job, or what is left of it: the flow's trials, adversarial training, the infinite width, the report.

    Parameters
    ----------
    config
        What to run.
    out
        Run directory, made if it is not there.
    infinite
        A finished `advntk run` on the same data, network and attack; without it that job is run in ``out``/infinite.
    address
        Ray cluster, None for this machine; its nodes must see ``out``.
    display
        Where to show progress.

    Raises
    ------
    RequestError
        If the request is impossible.
    StoreError
        If stored data are damaged, or belong to another configuration.
    SolverError
        If a flow does not converge, or training overflows.
    """
    folder, shown = FiniteRunDirectory.at(out), display or Display()
    problem = Problem(config)  # a wrong request fails before anything is written
    rows = None if infinite is None else infinite_rows(config, infinite)
    with folder.claimed(config):
        results = folder.read_results() if folder.report.exists() else None
        if results is not None:
            return RunOutcome(folder.root, results, worked=False)
        with RunContext(problem, folder, shown, address=address) as context:
            results = _work(context, config, rows)
    return RunOutcome(folder.root, results, worked=True)


def infinite_rows(config: FiniteWidthConfig, path: str | Location) -> dict[str, Any]:
    """The methods of a finished run on the same problem.

    Raises
    ------
    RequestError
        If the run is not finished, or not a run.
    StoreMismatchError
        If it had other data, another network or another attack; names the key.
    """
    folder = RunDirectory.at(path)
    stored = folder.stored_config()
    other = difference(config, stored, sections=("data", "network", "attack"), free=[("network", "backend")])
    if other is not None:
        raise StoreMismatchError(str(folder.root), *other)
    results, _ = read_results(folder, stored)
    if results is None:
        raise folder.unfinished()
    return dict(results["methods"])


def _work(context: RunContext, config: FiniteWidthConfig, rows: dict[str, Any] | None) -> dict[str, Any]:
    """Every stage, then the results; these are written last. ``rows``: the methods of infinite width, if known."""
    from advntk_dist.report.finite_page import write_finite_report

    root, address, display = context.folder.root, context.address, context.display
    theorem = flow(context, config)
    trials = training(context, config)
    if rows is None:
        with context.events.stage("infinite"):
            outcome = run(config.infinite(), root / "infinite", address=address, display=display)
        rows = outcome.results["methods"]
    methods = rows | method_rows(trials)
    largest = max(row["max_perturbation"] for row in methods.values())
    results = context.description() | {
        "attack": config.attack.described() | {"max_perturbation": largest},
        "methods": methods,
        "flow": theorem,
        "training": training_summary(config, trials),
        "seconds": context.events.seconds(),
        "environment": environment(),
    }
    write_finite_report(schema.FiniteWidthResults.model_validate(results), config.to_toml(), root)
    sealed.write(context.folder.results, schema.FiniteWidthResults, results)
    return results


def flow(context: RunContext, config: FiniteWidthConfig) -> dict[str, Any]:
    """The trials of the theorem's setting, and what they say together."""
    c, problem = config.flow, context.problem
    x, x_test = (part.x.astype(c.dtype) for part in (problem.train.first(c.n_train), problem.test.first(c.n_test)))
    y = problem.targets[: c.n_train]
    trials = [_trial(context, config, "flow", width, seed) for width in c.widths for seed in range(c.seeds)]

    def records(trial: Trial) -> tuple[Records, Records]:
        return flow_records(trial.group(), c, len(x) + len(x_test), y.shape[1])

    with context.events.stage("flow"):
        missing = [trial for trial in trials if records(trial)[0].read(0) is None]
        with _shown(context, "Gradient flow", trials, missing) as done:
            run_trials(flow_trial, missing, (c,), (x, y, x_test), address=context.address, on_done=done)
        numbers, outputs = {}, {}
        for trial in trials:
            found, values = (_row(record) for record in records(trial))
            numbers[trial.width, trial.seed], outputs[trial.width, trial.seed] = found, values[0]
        response, ark = closed_form(problem.net, x.astype(np.float64), x_test.astype(np.float64), config)
        return flow_summary(config, numbers, outputs, response, y) | {"ark": float(ark.mean())}


def training(context: RunContext, config: FiniteWidthConfig) -> dict[int, list[TrainingPoint]]:
    """The paper's baseline: evaluations by seed."""
    c, attack, batch, problem = config.finite, config.attack, config.evaluation.batch, context.problem
    parts = [(part.x, part.y) for part in (problem.train, problem.val, problem.test)]
    trials = [_trial(context, config, "training", c.width, c.seed + i) for i in range(c.seeds)]
    points = len(evaluation_steps(c))
    with context.events.stage("training"):
        missing = [trial for trial in trials if committed_points(trial.group(), points) < points]
        with _shown(context, "Adversarial training", trials, missing) as done:
            run_trials(training_trial, missing, (c, attack, batch), parts, address=context.address, on_done=done)
        sizes = config.data.n_val, config.data.n_test
        return {t.seed: read_points(t.group(), c, attack, *sizes, batch) for t in trials}


@contextmanager
def _shown(
    context: RunContext, title: str, trials: list[Trial], missing: list[Trial]
) -> Iterator[Callable[[Trial], None]]:
    """Show progress, and note each trial that is done; the missing ones are put in the order of their start."""
    missing.sort(key=lambda trial: (-trial.width, trial.seed))  # the widest would otherwise end last, and alone
    with context.display.stage(title, len(trials), "networks") as advance:
        if len(missing) < len(trials):
            advance(len(trials) - len(missing), False)

        def done(trial: Trial) -> None:
            advance(1, True)
            context.events.write("trial", width=trial.width, seed=trial.seed)

        yield done


def _trial(context: RunContext, config: FiniteWidthConfig, kind: str, width: int, seed: int) -> Trial:
    values = config.infinite().model_dump(mode="json", include={"data", "network", "attack"})
    for section, key in IDENTITY_FREE:
        values.get(section, {}).pop(key, None)
    own = config.flow if kind == "flow" else config.finite
    text = json.dumps([values, own.model_dump(mode="json")], sort_keys=True)
    identity = (
        ("configuration", hashlib.sha256(text.encode()).hexdigest()[:16]),
        ("data", context.problem.dataset.fingerprint),
    )
    path = context.folder.root / "trials" / f"{kind}-w{width}-s{seed}.zarr"
    path.parent.mkdir(exist_ok=True)
    return Trial(str(path.resolve()), identity, context.problem.net.spec, width, seed)


def _row(record: Records) -> NDArray[np.float64]:
    values = record.read(0)
    if values is None:
        raise StoreDamagedError(f"{record.where}: missing; run the same command again")
    return np.asarray(values[0])
