"""`advntk report --compare`: finished runs read from their directories, and written side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from advntk_dist.errors import RequestError
from advntk_dist.evaluation.statistics import paired_differences
from advntk_dist.pipeline.directory import RunDirectory
from advntk_dist.pipeline.finished import read_results
from advntk_dist.pipeline.worst_case import WorstCase
from advntk_dist.progress import Display
from advntk_dist.report.compare import ComparedRun, differs, write_comparison
from advntk_dist.report.judgements import title_of
from advntk_dist.results.schema import PairRow, RunResults, WorstCaseResults
from advntk_dist.storage.paths import Location, location


def compare_runs(
    folders: Sequence[str | Location], target: str | Location, *, display: Display | None = None
) -> Location:
    """Write one page that compares finished runs.

    Parameters
    ----------
    folders
        Two or more run directories; none of them is changed.
    target
        The HTML file to write.
    display
        Where to say what is done; nowhere by default.

    Raises
    ------
    RequestError
        If there are fewer than two, one is given twice or is not finished, or the page cannot be written.
    """
    places = [location(folder) for folder in folders]
    if len(places) < 2 or len({place.resolve() for place in places}) < len(places):
        raise RequestError("report --compare: give two or more different run directories")
    runs, cases = [], []
    for place, name in zip(places, _names(places), strict=True):
        folder = RunDirectory.at(place)
        config = folder.stored_config()
        results, met = read_results(folder, config)
        if results is None:
            raise folder.unfinished()
        cases.append(None if met is None else met.worst_case(config))
        images = None if met is None else met.images
        runs.append(ComparedRun(name, RunResults.model_validate(results), json.loads(config.model_dump_json()), images))
    runs, cases = _under_the_same(runs, cases)
    (display or Display(quiet=True)).say("writing the comparison")
    return write_comparison(runs, location(target), _pairs(runs, cases))


def _under_the_same(
    runs: list[ComparedRun], cases: list[WorstCase | None]
) -> tuple[list[ComparedRun], list[WorstCase | None]]:
    """Each run under the worst of the attacks that all of them have met; under all of its own where there is none."""
    known = [case for case in cases if case is not None]
    if len(known) < len(cases):
        return runs, cases
    met = [[s.attacks for s in case.sets] for case in known]
    common = [attacks for attacks in met[0] if all(attacks in others for others in met)]
    if not common:
        return runs, cases
    same = [WorstCase(tuple(s for s in case.sets if s.attacks in common), ()) for case in known]
    told = [
        replace(run, results=_with_worst_case(run.results, shared), also=_more(whole, shared))
        for run, whole, shared in zip(runs, known, same, strict=True)
    ]
    return told, list(same)


def _with_worst_case(results: RunResults, shared: WorstCase) -> RunResults:
    return results.model_copy(update={"worst_case": WorstCaseResults.model_validate(shared.as_dict())})


def _more(whole: WorstCase, shared: WorstCase) -> str:
    """What is left of a run's methods under the attacks that it has met beyond those that all compared runs have."""
    if len(whole.sets) == len(shared.sets):
        return ""
    left = ", ".join(f"{title_of(name)} {100 * result.robust.value:.1f}%" for name, result in whole.methods.items())
    more = len(whole.attacks) - len(shared.attacks)
    beyond = f"It has met {more} more, which not all runs here have"
    return f"{beyond}; robust under all of them, on {whole.images:,} test images: {left}."


def _pairs(runs: Sequence[ComparedRun], cases: Sequence[WorstCase | None]) -> tuple[PairRow, ...]:
    """Each method of each run against the same of every run before it, where both met the same attacked images."""
    rows = []
    for (old, before), (new, after) in combinations(zip(runs, cases, strict=True), 2):
        if before is not None and after is not None and differs(old, new) is None:
            for method in before.methods:
                title = title_of(method)
                both = {f"{old.name}: {title}": before.methods[method], f"{new.name}: {title}": after.methods[method]}
                rows += paired_differences(both)
    return tuple(PairRow(**row) for row in rows)


def _names(places: Sequence[Location]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [place.resolve().parts for place in places]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(place) for place in places]
