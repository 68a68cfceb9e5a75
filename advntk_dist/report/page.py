"""Pages from templates, and files that land in a folder whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from advntk_dist.errors import RequestError
from advntk_dist.report.format import as_percent, as_radius, signed
from advntk_dist.report.judgements import title_of
from advntk_dist.report.style import Plot
from advntk_dist.storage.durable import write_durable
from advntk_dist.storage.paths import Location


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


def write_page(folder: Location, page: str, plots: Mapping[str, Plot], absent: Iterable[str] = ()) -> Location:
    """Write ``report.html`` and its plots, the page last; remove the plots of ``absent`` names.

    Raises
    ------
    RequestError
        If the folder cannot be written to.
    """
    target = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_plots(folder, plots)
        for name in absent:
            for ending in ("svg", "csv"):
                (folder / f"{name}.{ending}").unlink(missing_ok=True)
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
