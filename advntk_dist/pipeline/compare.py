"""`advntk report --compare`: finished runs read from their directories, and written side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence

from advntk_dist.errors import RequestError
from advntk_dist.pipeline.rundir import RunDirectory
from advntk_dist.report.compare import ComparedRun, write_comparison
from advntk_dist.storage.location import Location, location


def compare_runs(folders: Sequence[str | Location], target: str | Location) -> Location:
    """Write one page that compares finished runs.

    Parameters
    ----------
    folders
        Two or more run directories; none of them is changed.
    target
        The HTML file to write.

    Raises
    ------
    RequestError
        If there are fewer than two, one is given twice or is not finished, or the page cannot be written.
    """
    places = [location(folder) for folder in folders]
    if len(places) < 2 or len({place.resolve() for place in places}) < len(places):
        raise RequestError("report --compare: give two or more different run directories")
    runs = []
    for place, name in zip(places, _names(places), strict=True):
        folder = RunDirectory.at(place)
        config, results = folder.stored_config(), folder.read_results()
        if results is None:
            raise RequestError(f"{folder.root}: the run is not finished; `advntk run {folder.config} --out {place}`")
        runs.append(ComparedRun(name, results, json.loads(config.model_dump_json())))
    return write_comparison(runs, location(target))


def _names(places: Sequence[Location]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [place.resolve().parts for place in places]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(place) for place in places]
