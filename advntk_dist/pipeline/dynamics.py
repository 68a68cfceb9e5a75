"""`advntk dynamics`: standard and adversarial training of a run's network in closed form, over all times.

Standard training is Xi(t) = t; adversarial training has Xi_i(t) = integral of exp(Theta_x(x_i, x_i) eta_i S) (Fu & Wang
2024, theorem 2). Both end at the plain NTK regressor. Evaluations are committed batch by batch beside those of
`advntk run`, and those of standard training are the same records, so nothing is attacked twice.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from advntk_dist.errors import RequestError, StoreIncompleteError
from advntk_dist.evaluation import MethodResult
from advntk_dist.gram import GramStore
from advntk_dist.pipeline.coefficients import CommittedCoefficients
from advntk_dist.pipeline.context import Part, Problem
from advntk_dist.pipeline.directory import RunDirectory
from advntk_dist.pipeline.stages import OpenRun, dynamics_on_free_cores, uniform
from advntk_dist.progress import Display
from advntk_dist.report.dynamics import write_dynamics_plot
from advntk_dist.results import schema, sealed
from advntk_dist.storage import Records, guarded_group
from advntk_dist.storage.paths import Location
from advntk_dist.theory.flows import Flow, adversarial_flow, class_distances


def dynamics(
    out: str | Location, request: DynamicsRequest, *, display: Display | None = None
) -> tuple[Location, dict[str, Any]]:
    """Compute or complete the dynamics of a run; writes dynamics.json, dynamics.csv and dynamics.svg beside it.

    Returns
    -------
    path, results
        The JSON file, and what it holds.

    Raises
    ------
    RequestError
        If the directory has no complete Gram matrix, or the request is impossible.
    StoreError
        If stored data are damaged, or belong to another configuration.
    """
    folder, shown = RunDirectory.at(out), display or Display()
    config = folder.stored_config()
    status = GramStore.open(folder.gram).status()
    if status.done < status.total:
        raise StoreIncompleteError(
            f"{folder.gram}: {status.done} of {status.total} tiles; "
            f"`advntk gram build {folder.config} --out {folder.root}`"
        )
    run = OpenRun.at(folder, Problem(config), shown)
    with folder.claimed(config), run.context as context, context.events.stage("dynamics"):
        results = _work(run, request)
        path = folder.root / "dynamics.json"
        write_dynamics_plot(schema.DynamicsResults.model_validate(results), folder.root)
        sealed.write(path, schema.DynamicsResults, results)
    if folder.results.exists():
        from advntk_dist.pipeline.run import rebuild_report

        rebuild_report(folder.root, display=shown)
    return path, results


Rates = Literal["adaptive", "uniform"]


@dataclass(frozen=True)
class DynamicsRequest:
    """What `advntk dynamics` is asked for.

    Attributes
    ----------
    strength
        Theta_x eta S of the median sample: its effective time runs e^strength times as fast as the clock.
    rates
        "adaptive": eta_i in proportion to the distance of image i to the nearest training image of another class, so
        that images with room around them are attacked harder; "uniform": one eta for all samples.
    schedule
        Profile of eta over time, see :func:`advntk_dist.theory.schedules.named`.
    duration
        Time over which a schedule unfolds; by default the middle of the grid of times, on the log scale.
    pieces
        Pieces to an interval of the grid, where a schedule needs the exact piecewise answer.
    images
        Test and validation images that are attacked; by default as many as the run itself does.
    """

    strength: float = 2.0
    rates: Rates = "adaptive"
    schedule: str = "constant"
    duration: float | None = None
    pieces: int = 4
    images: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises
        ------
        RequestError
            If one is out of range.
        """
        if not (np.isfinite(self.strength) and 0 <= self.strength <= 100):
            raise RequestError(f"--strength must be from 0 to 100, got {self.strength}")
        if self.rates not in ("adaptive", "uniform"):
            raise RequestError(f"--rates: no {self.rates!r}; there are adaptive and uniform")
        if self.duration is not None and not (np.isfinite(self.duration) and self.duration > 0):
            raise RequestError(f"--duration must be > 0, got {self.duration}")
        if self.pieces < 1:
            raise RequestError(f"--pieces must be at least 1, got {self.pieces}")
        if self.images is not None and self.images < 1:
            raise RequestError(f"--images must be at least 1, got {self.images}")


Array = NDArray[np.float64]

MEASURES = ("train_residual", "train_accuracy", "distance_to_ntk")


def _work(run: OpenRun, request: DynamicsRequest) -> dict[str, Any]:
    """Everything that dynamics.json holds."""
    context, coefficients, config, problem = run.context, run.coefficients, run.context.config, run.context.problem
    train, finite_times, tolerance = problem.train, config.evaluation.times, config.solver.tolerance
    table = uniform(run)
    ark = problem.net.ark(train.x).astype(np.float64)
    factors = np.ones(len(ark))
    if request.rates == "adaptive":
        factors = class_distances(train.x, train.y)
    at = adversarial_flow(
        ark,
        factors,
        strength=request.strength,
        schedule=request.schedule,
        duration=request.duration,
        times=finite_times,
    )
    settings = asdict(request) | {"times": [float(t) for t in at.times]}
    settings.pop("images")
    label = "at-" + hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    group = guarded_group(context.folder.root / "flows.zarr" / label, context.identity | settings)
    solved = at.solve(dynamics_on_free_cores(run), group, tolerance)
    infinite = len(finite_times)
    standard = Flow.standard(np.array(finite_times), len(ark))
    notes = coefficients.uniform_solves().read_all()
    assert notes is not None
    passes, errors = notes[:infinite, 0], notes[:infinite, 1]
    own_cost = {"bases": 1, "passes": int(passes.max()), "error": float(errors.max())}

    limit = CommittedCoefficients(table, infinite)
    sources = {
        "standard": [CommittedCoefficients(table, i) for i in range(infinite)],
        "adversarial": [CommittedCoefficients(solved.coefficients, i) for i in range(infinite)],
    }
    measures = _measures(run, Records(group, "measures", 2 * infinite + 1, (3,), span=2 * infinite + 1), sources, limit)
    exact = at.exactness(dynamics_on_free_cores(run), solved.coefficients, group, request.pieces, tolerance)
    flows: dict[str, Any] = {}
    for place, (name, flow) in enumerate((("standard", standard), ("adversarial", at))):
        prefix = "" if name == "standard" else f"{label}_"
        validation = _points(run, f"{prefix}validation", problem.val, request.images, sources[name])
        chosen = max(range(infinite), key=lambda i: (validation[i].robust.value, -i))
        m = request.images if request.images is not None else config.evaluation.curve
        test = _points(run, f"{prefix}test", problem.test, m, sources[name])
        end = _points(run, "test", problem.test, m, [limit], first=infinite)
        own = measures[place * infinite : (place + 1) * infinite]
        flows[name] = flow.describe() | {
            "solver": solved.cost if name == "adversarial" else own_cost,
            "early_stopping": {
                "t": float(flow.times[chosen]),
                "effective_time": float(flow.effective[chosen]),
                "chosen_on": f"{validation[chosen].robust.n} validation images",
                "validation_robust": validation[chosen].robust.value,
                "test_clean": test[chosen].clean.value,
                "test_robust": test[chosen].robust.value,
            },
            "rows": [
                _row(float(flow.times[i]), float(flow.effective[i]), own[i], test[i], validation[i])
                | {"closed_to_exact": None if exact is None or name == "standard" else float(exact[i, 0])}
                for i in range(infinite)
            ]
            + [_row(None, None, measures[-1], end[0], None) | {"closed_to_exact": 0.0}],
        }
    return {
        "dataset": problem.dataset.name,
        "network": config.network.name,
        "n_train": config.data.n_train,
        "attack": config.attack.described(),
        "request": asdict(request),
        "ark": {"smallest": ark.min(), "median": float(np.median(ark)), "largest": ark.max()},
        "remarks": at.remarks(ark, request.rates == "uniform"),
        "exactness": None
        if exact is None
        else {
            "pieces": request.pieces,
            "largest_distance": float(exact[:, 0].max()),
            "largest_refinement": float(exact[:, 1].max()),
        },
        "flows": flows,
    }


def _points(
    run: OpenRun, name: str, part: Part, images: int | None, sources: list[CommittedCoefficients], first: int = 0
) -> list[MethodResult]:
    """Evaluate at several times; the records have the names that `advntk run` gives them."""
    part_name = "validation" if part is run.context.problem.val else "test"
    m = len(part.y) if images is None else min(images, len(part.y))
    if m < len(part.y):
        name, part = (f"{name[:-4]}curve{m}" if name.endswith("test") else f"{name}{m}"), part.first(m)
    title = f"{'Adversarial' if name.startswith('at-') else 'Standard'} flow, {part_name}"
    with run.context.display.stage(title, len(sources) * m, "images") as advance:
        return [
            run.outcomes.evaluate(f"{name}_t{first + i}", part, source, run.context.config.attack, advance)
            for i, source in enumerate(sources)
        ]


def _measures(
    run: OpenRun, table: Records, sources: dict[str, list[CommittedCoefficients]], limit: CommittedCoefficients
) -> Array:
    """MEASURES at every time of both flows, and at infinity: one pass over the matrix, one over the test images."""
    found = table.read(0)
    if found is None:
        problem, y = run.context.problem, run.context.problem.targets
        stack = [source() for flow in sources.values() for source in flow] + [limit()]
        k = y.shape[1]
        on_x = dynamics_on_free_cores(run).operator.matmat(np.hstack(stack)).reshape(len(y), len(stack), k)
        outputs = run.outcomes.predictor(np.hstack(stack)).predict(problem.test.x).reshape(-1, len(stack), k)
        end = outputs[:, -1]
        found = np.array(
            [
                [
                    np.linalg.norm(on_x[:, i] - y) / np.linalg.norm(y),
                    (on_x[:, i].argmax(axis=1) == problem.train.y).mean(),
                    np.linalg.norm(outputs[:, i] - end) / np.linalg.norm(end),
                ]
                for i in range(len(stack))
            ]
        )
        table.write(0, found)
    return found


def _row(
    t: float | None, effective: float | None, measures: Array, test: MethodResult, val: MethodResult | None
) -> dict[str, Any]:
    return {
        "t": t,
        "effective_time": effective,
        **{name: float(value) for name, value in zip(MEASURES, measures, strict=True)},
        "clean": test.clean.value,
        "clean_low": test.clean.low,
        "clean_high": test.clean.high,
        "robust": test.robust.value,
        "robust_low": test.robust.low,
        "robust_high": test.robust.high,
        "n_test": test.clean.n,
        "max_perturbation": test.max_perturbation,
        "validation_robust": None if val is None else val.robust.value,
    }
