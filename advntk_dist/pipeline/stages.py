"""The stages of a run: functions that read what the stages before committed, and do only what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.registry import bind_attack
from advntk_dist.config import AttackConfig
from advntk_dist.data.duplicates import NearEqual, find_near_equal
from advntk_dist.distributed.session import ray_announced
from advntk_dist.dynamics import ATDynamics
from advntk_dist.evaluation import MethodResult
from advntk_dist.evaluation.committed import CommittedRows, counted
from advntk_dist.evaluation.evaluator import FARTHEST, NearestTraining, distances, nearer
from advntk_dist.evaluation.linear_robustness import LinearRobustness
from advntk_dist.evaluation.radius_curve import COLUMNS
from advntk_dist.gram import GramStore, build_gram
from advntk_dist.pipeline.coefficients import SPECTRUM, Coefficients, CommittedCoefficients, GramSolver
from advntk_dist.pipeline.context import Part, Problem, RunContext
from advntk_dist.pipeline.directory import RunDirectory, changed_images_named
from advntk_dist.pipeline.finished import curve_name, most_robust, outcome_names, radii_name
from advntk_dist.pipeline.outcomes import EvaluationWorkers, Outcomes
from advntk_dist.predictor import KernelPredictor
from advntk_dist.progress import Advance, Display, LateStage
from advntk_dist.report import KernelSpectrum
from advntk_dist.results.schema import ADV_NTK
from advntk_dist.spec import step_length
from advntk_dist.storage import Records
from advntk_dist.training import StepRecord, TrainingRun, train_adv_ntk
from advntk_dist.training.recipes import recipe_of

if TYPE_CHECKING:
    from advntk_dist.gram.plan import GramPlan

Array = NDArray[np.float64]

EXAMPLES = 8
"""Test images whose adversarial twins are shown."""
SPAN = 2048
"""Images that are compared with the training images at once."""


@dataclass(frozen=True)
class OpenRun:
    """A run at work: what its stages are handed; leaving its context closes what they opened.

    Attributes
    ----------
    context
        What it works on, and where.
    coefficients
        What is solved with its Gram matrix.
    outcomes
        Its attacked images.
    """

    context: RunContext
    coefficients: Coefficients
    outcomes: Outcomes

    @classmethod
    def at(cls, folder: RunDirectory, problem: Problem, display: Display, address: str | None = None) -> OpenRun:
        """The run in a claimed directory; parameters and errors as of :class:`RunContext`."""
        context = RunContext(problem, folder, display, address=address)
        solver, workers = GramSolver(context), EvaluationWorkers(context)
        return cls(context, Coefficients(context, solver), Outcomes(context, workers))


def gram(context: RunContext) -> GramStore:
    """Build the Gram matrix, or find it built."""
    problem, settings, display, events = context.problem, context.config.gram, context.display, context.events
    with events.stage("gram"), LateStage(display, "Gram matrix", "tiles") as shown:

        def on_progress(done: int, total: int, receipt: Any) -> None:
            shown.reach(done, total)
            if receipt is not None:
                events.write("tile", done=done, total=total, receipt=asdict(receipt))

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "worker_started":
                context.say_once("starting workers, each of which compiles the kernel")
            events.write(**event)

        def on_plan(plan: GramPlan) -> None:
            display.say(f"plan: {plan}")
            events.write("plan", plan=asdict(plan) | {"memory_bytes": plan.memory_bytes})

        with changed_images_named(context.folder.root, problem.dataset.name), ray_announced(display.say):
            return build_gram(
                problem.net,
                problem.train.raw,
                store=context.folder.gram,
                tile=settings.tile,
                dtype=settings.dtype,
                workers=settings.workers,
                address=context.address,
                on_progress=on_progress,
                on_event=on_event,
                on_plan=on_plan,
            )


def dynamics_on_free_cores(run: OpenRun) -> ATDynamics:
    """End the workers, whose cores the solver takes, and open the AT dynamics."""
    run.outcomes.workers.stop()
    return run.coefficients.solver.dynamics()


def uniform(run: OpenRun) -> Records:
    """Coefficients (times, n, k) of uniform varpi = t, the last one at t = infinity."""
    context, coefficients = run.context, run.coefficients
    times, tolerance = coefficients.times, context.config.solver.tolerance
    table, notes = coefficients.uniform(), coefficients.uniform_solves()
    if any(table.read(i) is None for i in range(len(times))) or notes.read_all() is None:
        with context.events.stage("solve"):
            if not coefficients.solver.knows_uniform(times, tolerance):
                dynamics_on_free_cores(run)  # before the bar below: a Gram matrix that is built has one of its own
            with context.display.stage("Uniform dynamics", 1, "solve") as advance:
                coefficients.commit(table, notes, coefficients.solver.uniform(times, tolerance))
                advance(1, True)
    return table


def _solved(run: OpenRun, table: Records, solve: Callable[[], Array]) -> Array:
    """What a table of one chunk holds; it is computed and committed first where it is not there."""
    found = table.read(0)
    if found is None:
        with run.context.events.stage("solve"):
            found = solve()
            table.write(0, found)
    return found


def spectrum(run: OpenRun) -> KernelSpectrum:
    """Leading eigenvalues of the Gram matrix; no pass where the uniform trajectory has just been computed."""
    config = run.context.config

    def leading() -> Array:
        dynamics, longest = dynamics_on_free_cores(run), max(config.evaluation.times)
        values, errors = dynamics.leading_eigenvalues(1.0, longest, config.solver.tolerance)
        rows = np.zeros((1, 2, SPECTRUM))  # zeros fill the rest: eigenvalues that are kept are positive
        m = min(SPECTRUM, len(values))
        rows[0, 0, :m], rows[0, 1, :m] = values[:m], errors[:m]
        return rows

    values, errors = _solved(run, run.coefficients.spectrum(), leading)[0]
    kept = values > 0
    return KernelSpectrum(values[kept], errors[kept], config.data.n_train)


def select(run: OpenRun) -> tuple[int, list[MethodResult]]:
    """Attack the validation images at every time; the index of the time with the best robust accuracy."""
    context, table = run.context, uniform(run)
    images = len(context.config.evaluation.times) * len(context.problem.val.y)
    with context.events.stage("select"), context.display.stage("Early stopping", images, "images") as advance:
        return early_stop(run, table, advance)


def early_stop(run: OpenRun, table: Records, advance: Advance) -> tuple[int, list[MethodResult]]:
    """As :func:`select`, of the uniform coefficients and as part of a stage that ``advance`` shows."""
    results = _at_every_time(run, table, "validation", run.context.problem.val, advance)
    return most_robust(results), results


def curve(run: OpenRun) -> list[MethodResult]:
    """The degeneration curve: clean and robust test accuracy at every finite time."""
    context, table, (name, m) = run.context, uniform(run), curve_name(run.context.config)
    part = context.problem.test if m == len(context.problem.test.y) else context.problem.test.first(m)
    images = len(context.config.evaluation.times) * m
    with context.events.stage("evaluate"), context.display.stage("Degeneration curve", images, "images") as advance:
        return _at_every_time(run, table, name, part, advance)


def _at_every_time(run: OpenRun, table: Records, name: str, part: Part, advance: Advance) -> list[MethodResult]:
    config = run.context.config
    return [
        run.outcomes.evaluate(f"{name}_t{i}", part, CommittedCoefficients(table, i), config.attack, advance)
        for i in range(len(config.evaluation.times))
    ]


def train(run: OpenRun, title: str = "Adv-NTK") -> TrainingRun:
    """Adv-NTK, and its coefficients; ``title`` is what progress is shown under."""
    context, coefficients = run.context, run.coefficients
    config, problem, events = context.config, context.problem, context.events
    with events.stage("train"), LateStage(context.display, title, "steps") as shown:

        def on_step(step: int, record: StepRecord) -> None:
            shown.reach(step, config.train.steps)
            shown.reach(step + 1, config.train.steps)
            events.write("step", step=step + 1, loss=record.loss, robust=record.robust)

        def predictor() -> KernelPredictor:
            context.say_once("compiling the steps of Adv-NTK")
            return problem.predictor

        recipe = recipe_of(
            config.train,
            problem.train,
            problem.val,
            bind_attack(config.attack, training=True),
            lambda: config.evaluation.times[select(run)[0]],
            config.solver.tolerance,
        )
        trained = train_adv_ntk(
            recipe,
            lambda: dynamics_on_free_cores(run),
            predictor,
            len(problem.train.y),
            group=coefficients.training,
            steps=config.train.steps,
            on_step=on_step,
        )
        table, notes = coefficients.trained(), coefficients.trained_solve()
        if table.read(0) is None or notes.read_all() is None:
            solution = dynamics_on_free_cores(run).coefficients(trained.varpi, tol=config.solver.tolerance)
            coefficients.commit(table, notes, [solution])
    return trained


def source(run: OpenRun, method: str, chosen: int) -> tuple[str, CommittedCoefficients]:
    """The name of a method's outcomes on test images, and its coefficients; ``chosen`` is the early stop."""
    name = outcome_names(run.context.config, chosen)[method]
    if method == ADV_NTK:
        return name, CommittedCoefficients(run.coefficients.trained(), 0)
    last = len(run.coefficients.times) - 1
    return name, CommittedCoefficients(uniform(run), last if method == "ntk" else chosen)


def sources(run: OpenRun, chosen: int) -> dict[str, CommittedCoefficients]:
    """The coefficients of each method; ``chosen`` is the index of the time of early stopping."""
    return {method: source(run, method, chosen)[1] for method in outcome_names(run.context.config, chosen)}


def methods(run: OpenRun, chosen: int, attack: AttackConfig) -> dict[str, MethodResult]:
    """The three methods on the test images under an attack."""
    context, test = run.context, run.context.problem.test
    found = {method: source(run, method, chosen) for method in outcome_names(context.config, chosen)}
    images = len(found) * len(test.y)
    with context.events.stage("evaluate"), context.display.stage("Test images", images, "images") as advance:
        return {
            method: run.outcomes.evaluate(name, test, coefficients, attack, advance)
            for method, (name, coefficients) in found.items()
        }


def radius_curves(run: OpenRun, chosen: int) -> None:
    """Commit the robustness of each method over the radius, on the test images of the degeneration curve."""
    context, attack, (_, m) = run.context, run.context.config.attack, curve_name(run.context.config)
    part, group, batch = context.problem.test.first(m), run.outcomes.group(attack), context.config.evaluation.batch
    step = step_length(attack.radius, attack.step_size)
    task = LinearRobustness(attack.radius, attack.norm, attack.steps, step)
    found = [source(run, method, chosen) for method in outcome_names(context.config, chosen)]
    with context.events.stage("evaluate"), context.display.stage("Radius curve", len(found) * m, "images") as advance:
        for name, coefficients in found:
            rows = CommittedRows(group, radii_name(name, m), m, COLUMNS, batch, counted(advance), coefficients.seal)
            if len(rows.missing):
                with ray_announced(context.display.say):
                    rows.fill(run.outcomes.workers.evaluator(coefficients, part), rows.missing, task)


def examples(run: OpenRun) -> tuple[Array, Array]:
    """Adversarial twins (m, H, W, C) of the first test images under Adv-NTK, and both predictions (m, 2)."""
    test, attack = run.context.problem.test, run.context.config.attack
    m = min(EXAMPLES, len(test.y))
    shape = test.x.shape[1:]
    table = Records(run.outcomes.group(attack), "examples", m, (int(np.prod(shape)) + 2,), span=m)
    rows = table.read(0)
    if rows is None:
        predictor = run.outcomes.predictor(CommittedCoefficients(run.coefficients.trained(), 0)())
        x, y = test.x[:m], test.y[:m]
        twins = bind_attack(attack)(predictor, x, y, seed=attack.seed, indices=np.arange(m))
        guesses = np.column_stack([predictor.predict(x).argmax(axis=1), predictor.predict(twins).argmax(axis=1)])
        rows = np.hstack([twins.reshape(m, -1), guesses]).astype(np.float64)
        table.write(0, rows)
    return rows[:, :-2].reshape(m, *shape), rows[:, -2:]


def near_equal_images(run: OpenRun) -> NearEqual:
    """Which images are almost the same as a training image; after the uniform dynamics.

    Those between training images are in the Gram matrix; validation and test images take one pass over the training
    images.

    Raises
    ------
    EvaluationError
        If kernel values cannot be computed.
    StoreError
        If the Gram matrix is damaged, or what is found cannot be committed.
    """
    problem, group, store = run.context.problem, run.coefficients.group, run.coefficients.solver.store
    n = len(problem.train.y)
    nearest = {
        "train": _solved(run, Records(group, "nearest_train", n, (2,), span=n), lambda: nearest_in_store(store()))
    }
    typical = _solved(run, Records(group, "typical_distance", 1, (1,)), lambda: _typical_distance(store()))
    for name, part in (("val", problem.val), ("test", problem.test)):
        rows = CommittedRows(group, f"nearest_{name}", len(part.y), 2, SPAN, lambda *_: None)
        if len(rows.missing):
            with run.context.events.stage("solve"):
                task = NearestTraining(_scale(store()))
                judged = run.outcomes.workers.evaluator(CommittedCoefficients(uniform(run), 0), part)
                rows.fill(judged, rows.missing, task)
        nearest[name] = rows.table
    return find_near_equal(problem.dataset, problem.rows, nearest, float(typical[0, 0]))


def _typical_distance(store: GramStore) -> Array:
    """Median distance of two training images, from the first tile, (1, 1)."""
    tile = store.read_tile("ntk", 0, 0)
    scale = np.diagonal(tile).astype(np.float64) ** -0.5
    pairs = distances(tile, scale, scale)[np.triu_indices(len(tile), 1)]
    return np.array([[float(np.median(pairs)) if len(pairs) else 0.0]])


def nearest_in_store(store: GramStore) -> Array:
    """For each of n images of a symmetric store the nearest that it does not equal: distance and index, (n, 2).

    Every tile is read once.
    """
    scale = _scale(store)
    found = np.column_stack([np.full(store.grid.rows, FARTHEST), np.zeros(store.grid.rows)])
    for t in store.grid:
        distance = distances(store.read_tile("ntk", t.i, t.j), scale[t.rows], scale[t.cols])
        if t.on_diagonal:
            np.fill_diagonal(distance, FARTHEST)
        else:
            nearer(found[t.cols], distance.T, t.row_start)
        nearer(found[t.rows], distance, t.col_start)
    return found


def _scale(store: GramStore) -> Array:
    """Theta(x, x)^(-1/2) of the images of a store, (n,)."""
    tiles = (t for t in store.grid if t.on_diagonal)
    return np.concatenate([np.diagonal(store.read_tile("ntk", t.i, t.j)) for t in tiles]).astype(np.float64) ** -0.5
