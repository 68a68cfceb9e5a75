"""`advntk dynamics`: standard and adversarial training of a run's network in closed form, over all times.

Standard training is Xi(t) = t; adversarial training has Xi_i(t) = integral of exp(Theta_x(x_i, x_i) eta_i S) (Fu & Wang
2024, theorem 2). Both end at the plain NTK regressor. Evaluations are committed batch by batch beside those of
`advntk run`, and those of standard training are the same records, so nothing is attacked twice.
"""

from __future__ import annotations

import math
from typing import Any

from advntk_dist.errors import StoreIncompleteError
from advntk_dist.gram import GramStore
from advntk_dist.pipeline.dynamics_request import DynamicsRequest
from advntk_dist.pipeline.dynamics_stage import DynamicsStage
from advntk_dist.pipeline.events import EventLog
from advntk_dist.pipeline.problem import Problem
from advntk_dist.pipeline.rundir import RunDirectory
from advntk_dist.progress import Display
from advntk_dist.report.csv_text import csv_text
from advntk_dist.report.dynamics import write_dynamics_plot
from advntk_dist.results import schema
from advntk_dist.storage.location import Location


def dynamics(
    out: str | Location, request: DynamicsRequest, *, display: Display | None = None
) -> tuple[Location, dict[str, Any]]:
    """Compute or complete the dynamics of a run; writes dynamics.json, dynamics.csv and dynamics.png beside it.

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
    store = GramStore.open(folder.gram)
    status = store.status()
    if status.done < status.total:
        raise StoreIncompleteError(
            f"{folder.gram}: {status.done} of {status.total} tiles; "
            f"`advntk gram build {folder.config} --out {folder.root}`"
        )
    stage = DynamicsStage(Problem(config), folder, EventLog(folder.events), shown, None)
    stage.store = store
    with folder.claimed(config), stage.events.stage("dynamics"):
        results = stage.work(request)
        path = folder.root / "dynamics.json"
        folder.write_text(folder.root / "dynamics.csv", as_csv(results))
        write_dynamics_plot(results, folder.root)
        schema.write(path, schema.DynamicsResults, results)
    if folder.results.exists():
        from advntk_dist.pipeline.run import rebuild_report

        rebuild_report(folder.root, display=shown)
    return path, results


def as_csv(results: dict[str, Any]) -> str:
    """The rows of both flows as a table; t = infinity is "inf" here, and null in JSON, which has no infinity."""
    rows = [{"flow": name, **row} for name, flow in results["flows"].items() for row in flow["rows"]]
    for row in rows:
        if row["t"] is None:
            row |= {"t": math.inf, "effective_time": math.inf}
    return csv_text(rows)
