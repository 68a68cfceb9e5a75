"""The grid at work: each cell is a run of the paper's settings over a shared Gram matrix; then the tables."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from advntk_dist.attacks.registry import bind_attack
from advntk_dist.environment import environment
from advntk_dist.evaluation import MethodResult
from advntk_dist.evaluation.evaluate import evaluate
from advntk_dist.finite.adversarial_training import train_adversarially, trained_predictor
from advntk_dist.finite.networks import FiniteNetwork
from advntk_dist.pipeline.coefficients import Coefficients, GramSolver
from advntk_dist.pipeline.context import Problem, RunContext
from advntk_dist.pipeline.directory import RunDirectory
from advntk_dist.pipeline.outcomes import EvaluationWorkers, Outcomes
from advntk_dist.pipeline.stages import OpenRun, early_stop, gram, source, train, uniform
from advntk_dist.progress import Display, LateStage
from advntk_dist.reproduce.grid import (
    ATTACKS,
    Cell,
    Clock,
    Grid,
    GridPoint,
    configuration,
    finite_settings,
    left_line,
    missing,
)
from advntk_dist.reproduce.table import write_tables
from advntk_dist.results import schema, sealed
from advntk_dist.results.schema import ADV_NTK
from advntk_dist.storage import guarded_group
from advntk_dist.storage.paths import local, location


def reproduce(
    grid: Grid,
    out: str | Path,
    *,
    display: Display | None = None,
    keep_grams: bool = False,
    workers: int | None = None,
    address: str | None = None,
) -> list[Any]:
    """Run what is missing of a grid, and write the tables of everything that the folder holds.

    Parameters
    ----------
    grid
        What is asked for.
    out
        Folder of the grid, on a disk.
    display
        Where to show progress.
    keep_grams
        Leave Gram matrices on disk.
    workers
        Ray actors that share the batches of attacked images; by default one a GPU or a core of a cluster, and none on
        one machine. The results are the same.
    address
        Ray cluster, None for this machine.

    Returns
    -------
    rows
        Of the table.

    Raises
    ------
    RequestError
        If the request is impossible: data that are not there, too many images.
    StoreError
        If stored data are damaged, or of other images.
    """
    shown, folder = display or Display(), RunDirectory.at(local(location(out)))
    root = local(folder.root)
    plan = grid.plan()
    firsts = {group[0].subject.label: group[0].subject for group in reversed(plan)}
    # A wrong request fails before anything is written.
    data = {label: _problem(point, grid.path).dataset.fingerprint for label, point in firsts.items()}
    missing(plan, root, data)
    with folder.held("grid"):
        left = missing(plan, root, data)
        shown.say(left_line(plan, left))
        clock = Clock(plan, left)

        def commit(cell: Cell, result: dict[str, Any]) -> None:
            sealed.write(cell.path(root), schema.CellResults, result)
            shown.say(clock.line(cell, result))

        for group in left:
            clock.gram(group)
            _compute_all(group, root, grid.path, shown, workers, address, commit)
            if not keep_grams:
                shutil.rmtree(_matrix(group[0].subject, root), ignore_errors=True)
            write_tables(folder)
        return write_tables(folder)


RUNS = "runs"
"""Folder of what the runs below that of a grid have committed."""


@dataclass(frozen=True)
class CellDirectory(RunDirectory):
    """The run of one radius and one attack; its Gram matrix lies beside those of others, as all of them share it."""

    matrix: Path

    @property
    def gram(self) -> Path:
        """The Gram store."""
        return self.matrix


def _matrix(point: GridPoint, root: Path) -> Path:
    return root / "grams" / f"{point.name}.zarr"


def _problem(point: GridPoint, path: str | None, workers: int | None = None) -> Problem:
    """Data and network of a grid point; its cells have attacks of their own."""
    return Problem(configuration(point, 8, ATTACKS[0], path, workers))


def _compute_all(
    group: list[Cell],
    root: Path,
    path: str | None,
    display: Display,
    workers: int | None,
    address: str | None,
    commit: Callable[[Cell, dict[str, Any]], None],
) -> None:
    """Compute the cells over one Gram matrix, which is built when one of them first needs it."""
    point = group[0].subject
    problem, matrix, place = _problem(point, path, workers), _matrix(point, root), root / RUNS / point.name
    matrix.parent.mkdir(parents=True, exist_ok=True)
    place.mkdir(parents=True, exist_ok=True)
    with RunContext(problem, CellDirectory(place, matrix), display, address=address) as shared:
        solver, evaluators = GramSolver(shared, lambda: gram(shared)), EvaluationWorkers(shared)
        for cell in group:
            folder = CellDirectory(place / f"r{cell.radius:g}-{cell.attack}", matrix)
            folder.root.mkdir(exist_ok=True)
            config = configuration(point, cell.radius, cell.attack, path)
            with RunContext(problem, folder, display, address=address, config=config) as context:
                run = OpenRun(context, Coefficients(context, solver), Outcomes(context, evaluators))
                commit(cell, compute(run, cell))


def compute(run: OpenRun, cell: Cell) -> dict[str, Any]:
    """What is committed of a cell: accuracies, what they are of, and the seconds that this call took."""
    started, point = time.monotonic(), cell.subject
    result, notes = _finite_network(run, cell) if cell.method == "at" else _kernel_method(run, cell)
    return {
        "dataset": point.label,
        "network": point.network,
        "radius": cell.radius,
        "attack": cell.attack,
        "method": cell.method,
        "seed": point.seed,
        **asdict(point.sizes),
        "data": run.context.problem.dataset.fingerprint,
        **result.as_dict(),
        **notes,
        "seconds": time.monotonic() - started,
        "environment": environment(),
    }


def _kernel_method(run: OpenRun, cell: Cell) -> tuple[MethodResult, dict[str, Any]]:
    """A method of `advntk run`, by its stages."""
    context, config, test = run.context, run.context.config, run.context.problem.test
    method, times, images = cell.method.replace("-", "_"), config.evaluation.times, len(test.y)
    notes: dict[str, Any] = {}
    if method == ADV_NTK:
        train(run, f"{cell.title}, training")
        notes = {"lr": config.train.lr}
    else:
        table = uniform(run)
    if method == "early_stopped":
        images += len(times) * len(context.problem.val.y)
    chosen = 0
    with context.events.stage("evaluate"), context.display.stage(cell.title, images, "images") as advance:
        if method == "early_stopped":
            chosen, found = early_stop(run, table, advance)
            notes = {"t": times[chosen], "validation_robust": found[chosen].robust.value}
        name, coefficients = source(run, method, chosen)
        return run.outcomes.evaluate(name, test, coefficients, config.attack, advance), notes


def _finite_network(run: OpenRun, cell: Cell) -> tuple[MethodResult, dict[str, Any]]:
    """A finite network after adversarial training, which is by pgd whatever attacks it then."""
    context, attack = run.context, run.context.config.attack
    problem, spec, batch = context.problem, context.problem.net.spec, context.config.evaluation.batch
    settings = finite_settings(cell.subject.sizes.at_steps, cell.subject.seed)
    training = attack.model_copy(update={"name": ATTACKS[0]})
    identity = {"settings": settings.model_dump(mode="json"), "attack": training.model_dump(mode="json")}
    group = guarded_group(
        context.folder.root.parent / f"at-{settings.steps}-{training.label}.zarr",
        {"data": problem.dataset.fingerprint} | identity,
    )
    network = FiniteNetwork.of(spec, settings.width, settings)
    x, val, test = problem.train.x, problem.val, problem.test
    run.outcomes.workers.stop()  # the cores are this process's now
    with LateStage(context.display, f"{cell.title}, training", "steps") as shown:
        train_adversarially(
            network,
            settings.seed,
            (x, problem.train.y),
            (val.x, val.y),
            # The test images wait for the evaluation below: one of the validation images stands in for them here.
            (val.x[:1], val.y[:1]),
            settings,
            training,
            group=group,
            batch=batch,
            on_step=lambda step: shown.reach(step, settings.steps),
        )
    with context.events.stage("evaluate"), context.display.stage(cell.title, len(test.y), "images") as advance:
        result = evaluate(
            lambda: trained_predictor(network, settings.seed, x, settings, group, batch),
            test.x,
            test.y,
            bind_attack(attack),
            norm=attack.norm,
            seed=attack.seed,
            group=run.outcomes.group(attack),
            name=f"at{settings.steps}",
            batch=batch,
            on_batch=advance,
        )
    return result, {"width": settings.width}
