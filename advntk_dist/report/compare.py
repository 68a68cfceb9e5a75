"""Runs side by side on one self-contained page: accuracies, curves, what differs in their settings, and times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from advntk_dist.errors import RequestError
from advntk_dist.report.figures import plot
from advntk_dist.report.page import render, replace_file
from advntk_dist.report.paired import Pair
from advntk_dist.report.scores import MethodScore, as_percent, method_scores
from advntk_dist.report.style import Theme, headroom, log_axis, new_figure, percent_axis
from advntk_dist.report.summary import attack_words
from advntk_dist.report.tables import duration, flatten, stages
from advntk_dist.storage.location import Location


@dataclass(frozen=True)
class ComparedRun:
    """A finished run: its short name, results.json, and its configuration as plain values."""

    name: str
    results: dict[str, Any]
    config: dict[str, Any]


def write_comparison(runs: Sequence[ComparedRun], target: Location, pairs: Sequence[Pair] = ()) -> Location:
    """Write the page that compares two or more runs; the same runs give the same bytes.

    ``pairs`` are differences between runs on the same attacked images, methods named as "run: method".

    Raises
    ------
    RequestError
        If a run's results lack what is compared, or the page cannot be written.
    """
    drawn = plot(
        lambda theme: curves_figure(runs, theme),
        "Robust (filled marks) and clean (hollow) test accuracy of one training time t for all samples, and of t = "
        "infinity (dashed, robust).",
        "Robust and clean accuracy against training time, one colour a run; the numbers are in the table above.",
    )
    scores = [replace(s, title=f"{run.name}: {s.title}") for run in runs for s in method_scores(run.results)]
    page = render(
        "compare.html",
        headline=headline(runs, pairs),
        pairs=pairs,
        names=[run.name for run in runs],
        scores=scores,
        best=max(score.robust for score in scores),
        curves=drawn,
        attacks=[(run.name, attack_words(run.results)) for run in runs],
        settings=_differing([run.config for run in runs]),
        versions=_differing([run.results.get("environment") or {} for run in runs]),
        times=_times(runs),
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, page.encode("utf-8"))
    except OSError as error:
        raise RequestError(
            f"report: cannot write {target}: {error.strerror or error}; give another file with --out"
        ) from error
    return target


def headline(runs: Sequence[ComparedRun], pairs: Sequence[Pair] = ()) -> str:
    """One sentence on the largest robust accuracy, which claims a difference only beyond the 95% intervals.

    Where both met the same images, the interval is that of their difference.
    """
    rows = sorted(
        ((score, run.name) for run in runs for score in method_scores(run.results)), key=lambda row: -row[0].robust
    )
    (first, name), rest = rows[0], [row for row in rows[1:] if row[1] != rows[0][1]]
    second, other = rest[0]
    words = f"{first.title} of {name} is the most robust, {as_percent(first.robust)}"
    against = f"{second.title} of {other}, {as_percent(second.robust)}"
    both = {f"{name}: {first.title}", f"{other}: {second.title}"}
    for pair in pairs:
        if both == {pair.method, pair.against}:
            verdict = "more than chance on the same images" if pair.robust.beyond_chance else "which may be chance"
            return f"{words}; {against}; {verdict}"
    if first.robust_interval is None or second.robust_interval is None:
        return f"{words}, against {against}; no intervals were recorded"
    if first.robust_interval[0] > second.robust_interval[1]:
        return f"{words}, beyond the intervals of {against}"
    return f"{words}; within the intervals of {against}"


def curves_figure(runs: Sequence[ComparedRun], theme: Theme) -> Figure:
    """Robust and clean accuracy against t, one colour a run."""
    figure = new_figure(3.6)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    highest = 0.0
    for run, colour, marker in zip(
        runs, cycle((theme.robust, theme.clean, theme.ink, theme.muted)), cycle("osD^"), strict=False
    ):
        curve = run.results["curve"]
        for kind, style, face in (("robust", "-", colour), ("clean", ":", "none")):
            values = np.array([row[kind] for row in curve["test"]])
            highest = max(highest, float(values.max()))
            axes.plot(
                curve["times"], values, color=colour, linestyle=style, marker=marker, markersize=3.5,
                markerfacecolor=face, label=run.name if kind == "robust" else None,
            )  # fmt: skip
        limit: MethodScore | None = next((s for s in method_scores(run.results) if s.key == "ntk"), None)
        if limit is not None:
            axes.axhline(limit.robust, color=colour, linestyle=(0, (4, 3)), linewidth=1.0)
    axes.set_ylim(0.0, headroom(highest))
    percent_axis(axes)
    log_axis(axes.xaxis)
    axes.set_xlabel("training time t (one for all samples)")
    axes.set_ylabel("test accuracy")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.8, columnspacing=1.4)
    return figure


def _differing(values: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Keys that not all have alike, with the value of each; a dash where one lacks it."""
    tables = [dict(flatten(v)) for v in values]
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = [(key, [table.get(key, "–") for table in tables]) for key in keys]
    return [row for row in rows if len(set(row[1])) > 1]


def _times(runs: Sequence[ComparedRun]) -> list[tuple[str, list[str]]]:
    tables = [{stage.name: duration(stage.seconds) for stage in stages(run.results.get("seconds"))} for run in runs]
    names = dict.fromkeys(name for table in tables for name in table)
    return [(name, [table.get(name, "–") for table in tables]) for name in names]
