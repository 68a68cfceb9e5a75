"""Write a run's report: one self-contained page and its plots as PNGs, each file whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from advntk_dist.errors import RequestError
from advntk_dist.report.dynamics import read_dynamics
from advntk_dist.report.figures import NAMES, Plot, dynamics_plot, make_plots
from advntk_dist.report.inputs import ReportInputs
from advntk_dist.report.scores import as_percent, method_scores
from advntk_dist.report.summary import attack_words, summarise
from advntk_dist.report.tables import facts, flatten, stages


def write_report(inputs: ReportInputs, folder: Path) -> Path:
    """Write ``report.html`` and its PNGs into ``folder`` and return the page's path.

    The same inputs give the same bytes; a file that already holds them is not touched. A PNG of an earlier
    report whose part is absent now is removed, so that the folder shows one run. The page is written last.

    Results of `advntk dynamics` that lie in the folder are shown with the degeneration curve.

    Raises
    ------
    RequestError
        If ``folder`` cannot be written to.
    StoreDamagedError
        If dynamics.json in it cannot be read.
    """
    plots = make_plots(inputs)
    dynamics = read_dynamics(folder)
    if dynamics is not None:
        plots["dynamics"] = dynamics_plot(dynamics)
    page = render_page(inputs, plots)
    target = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            plot = plots[name]
            path = folder / f"{name}.png"
            if isinstance(plot, Plot):
                replace_file(path, plot.light)
            else:
                path.unlink(missing_ok=True)
        replace_file(target, page.encode("utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise RequestError(
            f"report: cannot write to {folder}: {reason}; choose a folder that can be written"
        ) from error
    return target


def render_page(inputs: ReportInputs, plots: dict[str, Plot | str]) -> str:
    """Render the page as HTML text; everything from the inputs is escaped."""
    environment = Environment(
        loader=PackageLoader("advntk_dist", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = as_percent
    results = inputs.results
    scores = method_scores(results)
    timings = stages(results.get("seconds"))
    return environment.get_template("report.html").render(
        summary=summarise(inputs),
        facts=[*facts(results), ("Attack", attack_words(results))],
        scores=scores,
        best=max(score.robust for score in scores),
        plots={name: plots[name] for name in (*NAMES, "dynamics") if name in plots},
        stages=timings,
        config=inputs.config_toml,
        environment=flatten(results["environment"]) if results.get("environment") else [],
        numbers=flatten(results),
    )


def replace_file(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` in one step: readers see the old file or the new one, never a part."""
    if path.is_file() and path.read_bytes() == content:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
