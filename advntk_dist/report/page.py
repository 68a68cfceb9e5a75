"""Pages from templates, and files that land in a folder whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from advntk_dist.errors import RequestError
from advntk_dist.report.scores import as_percent, as_radius
from advntk_dist.storage.durable import write_durable
from advntk_dist.storage.paths import Location


def render(template: str, **values: Any) -> str:
    """Render a template of the package as HTML text; everything from the values is escaped."""
    environment = Environment(
        loader=PackageLoader("advntk_dist", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = as_percent
    environment.filters["radius"] = as_radius
    return environment.get_template(template).render(**values)


def write_page(folder: Location, page: str, pngs: Mapping[str, bytes], absent: Iterable[str] = ()) -> Location:
    """Write ``report.html`` and its PNGs, the page last; remove the PNGs of ``absent`` names.

    Raises
    ------
    RequestError
        If the folder cannot be written to.
    """
    target = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in pngs.items():
            replace_file(folder / f"{name}.png", content)
        for name in absent:
            (folder / f"{name}.png").unlink(missing_ok=True)
        replace_file(target, page.encode("utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise RequestError(
            f"report: cannot write to {folder}: {reason}; choose a folder that can be written"
        ) from error
    return target


def replace_file(path: Location, content: bytes) -> None:
    """Put ``content`` at ``path`` in one step: readers see the old file or the new one, never a part."""
    if path.is_file() and path.read_bytes() == content:
        return
    write_durable(path, content)
