"""Pages from templates, what their tables show, and files that land in a folder whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from advntk_dist.errors import RequestError
from advntk_dist.report.judgements import title_of
from advntk_dist.report.style import Plot
from advntk_dist.results.schema import Described
from advntk_dist.storage.durable import write_durable
from advntk_dist.storage.paths import Location
from advntk_dist.text import as_percent, as_radius, duration, signed


def render(template: str, **values: Any) -> str:
    """Render a template of the package as HTML text; everything from the values but the plots is escaped."""
    environment = Environment(
        loader=PackageLoader("advntk_dist", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": as_percent, "radius": as_radius, "signed": signed, "title_of": title_of}
    return environment.get_template(template).render(**values)


def write_page(folder: Location, page: str, plots: Mapping[str, Plot]) -> Location:
    """Write ``report.html`` and its plots, the page last.

    Raises
    ------
    RequestError
        If the folder cannot be written to.
    """
    target = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_plots(folder, plots)
        replace_file(target, page.encode("utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise RequestError(
            f"report: cannot write to {folder}: {reason}; choose a folder that can be written"
        ) from error
    return target


def write_plots(folder: Location, plots: Mapping[str, Plot]) -> None:
    """Write each plot as NAME.svg, and the data that it shows as NAME.csv beside it."""
    for name, plot in plots.items():
        replace_file(folder / f"{name}.svg", plot.svg.encode("utf-8"))
        replace_file(folder / f"{name}.csv", plot.csv.encode("utf-8"))


def replace_file(path: Location, content: bytes) -> None:
    """Put ``content`` at ``path`` in one step: readers see the old file or the new one, never a part."""
    if path.is_file() and path.read_bytes() == content:
        return
    write_durable(path, content)


def flatten(values: object, path: str = "") -> list[tuple[str, str]]:
    """Every leaf of a nested structure as (dotted path, text), in the order of the file.

    Numbers are written as JSON writes them, so none loses digits; a list of plain values stays on one row.
    """
    if isinstance(values, dict) and values:
        rows: list[tuple[str, str]] = []
        for key, value in values.items():
            rows += flatten(value, f"{path}.{key}" if path else str(key))
        return rows
    if isinstance(values, list | tuple) and any(isinstance(value, dict | list | tuple) for value in values):
        rows = []
        for index, value in enumerate(values):
            rows += flatten(value, f"{path}[{index}]")
        return rows
    return [(path, values if isinstance(values, str) else json.dumps(values, ensure_ascii=False, default=str))]


_STAGES = {
    "gram": "Gram matrix",
    "solve": "Coefficients at all times",
    "select": "Early stopping, on validation images",
    "train": "Adv-NTK",
    "evaluate": "Attacked test images",
    "report": "Report",
}


class StageTime(NamedTuple):
    """A stage in words, its time for reading, and its share (0 to 1) of the total."""

    title: str
    duration: str
    share: float


def stages(seconds: Mapping[str, float]) -> tuple[StageTime, ...]:
    """The stages of a run in the file's order; the last row is their total."""
    total = sum(seconds.values())
    return (
        *(StageTime(_STAGES.get(name, name), duration(time), time / (total or 1.0)) for name, time in seconds.items()),
        StageTime("Total", duration(total), 1.0),
    )


def facts(results: Described) -> list[tuple[str, str]]:
    """The few settings shown under the title."""
    sizes = (("training", results.n_train), ("validation", results.n_val), ("test", results.n_test))
    return [
        ("Data", results.dataset),
        ("Network", results.network),
        ("Images", ", ".join(f"{count:,} {label}" for label, count in sizes)),
    ]
