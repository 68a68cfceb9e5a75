"""Runs side by side on one self-contained page: accuracies, curves, what differs in their settings, and times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from matplotlib.figure import Figure

from advntk_dist.errors import RequestError
from advntk_dist.report.attacks import attacks_words
from advntk_dist.report.judgements import MethodScore, MethodsTable, run_scores, told_apart
from advntk_dist.report.page import flatten, render, replace_file, stages
from advntk_dist.report.style import (
    CLEAN,
    DASHED,
    INK,
    MUTED,
    ROBUST,
    accuracy_axis,
    accuracy_legend,
    log_axis,
    plot,
    single_axes,
)
from advntk_dist.results.schema import PairRow, RunResults
from advntk_dist.storage.paths import Location
from advntk_dist.text import as_percent


@dataclass(frozen=True)
class ComparedRun:
    """A finished run.

    Attributes
    ----------
    name
        Short name.
    results, config
        results.json, and the configuration as plain values.
    images
        What decides on the test images: ``data`` (fingerprint) and ``split``; None where that is not beside the
        results.
    also
        What a reader must know of attacks that this run alone has met; empty where there is nothing.
    """

    name: str
    results: RunResults
    config: dict[str, Any]
    images: dict[str, Any] | None = None
    also: str = ""

    @property
    def recorded(self) -> dict[str, Any]:
        """The same as far as the results and the configuration tell."""
        return {
            "data": self.results.dataset,
            "split": {k: v for k, v in self.config["data"].items() if k not in ("name", "path")},
        }

    @property
    def scores(self) -> tuple[MethodScore, ...]:
        """The methods under all attacks that the run has met, each with the key that differences between runs have."""
        scores = run_scores(self.results, self.results.met.methods)
        return tuple(score.model_copy(update={"key": f"{self.name}: {score.title}"}) for score in scores)

    @property
    def best(self) -> MethodScore:
        """The most robust method."""
        return max(self.scores, key=lambda score: score.robust)

    @property
    def attacks(self) -> list[dict[str, Any]]:
        """What the attacks are that the run has met."""
        return [{k: v for k, v in attack.items() if k != "max_perturbation"} for attack in self.results.met.attacks]


@dataclass(frozen=True)
class ComparisonVerdict:
    """A headline, and the method that it calls the most robust, as "run: method"; None where it calls none so."""

    words: str
    winner: str | None = None


def write_comparison(runs: Sequence[ComparedRun], target: Location, pairs: Sequence[PairRow] = ()) -> Location:
    """Write the page that compares two or more runs; the same runs give the same bytes.

    ``pairs`` are differences between runs on the same attacked images, methods named as "run: method".

    Raises
    ------
    RequestError
        If a run's results lack what is compared, or the page cannot be written.
    """
    drawn = plot(
        lambda: curves_figure(runs),
        (),  # which the degeneration.csv of each run holds
        "Robust (filled marks) and clean (hollow) test accuracy of one training time t for all samples, and of t = "
        "infinity (dashed, robust).",
        "Robust and clean accuracy against training time, one colour a run; the numbers are in the table above.",
    )
    scores = [score.model_copy(update={"title": score.key}) for run in runs for score in run.scores]
    verdict = headline(runs, pairs)
    data = [str(run.images["data"])[:12] if run.images else "–" for run in runs]
    page = render(
        "compare.html",
        headline=verdict.words,
        names=[run.name for run in runs],
        table=MethodsTable(scores, pairs, frozenset(filter(None, [verdict.winner]))),
        curves=drawn,
        attacks=[(run.name, f"{'; '.join(attacks_words(run.results.met.attacks))} {run.also}".strip()) for run in runs],
        settings=_differing([{"data fingerprint": found} | run.config for found, run in zip(data, runs, strict=True)]),
        same_data="–" not in data,
        versions=_differing([run.results.environment for run in runs]),
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


def differs(one: ComparedRun, other: ComparedRun) -> str | None:
    """What keeps the accuracies of two runs from one another: attacks, data, test images; None for nothing known."""
    if one.attacks != other.attacks:
        return "attacks"
    before, after = (one.images, other.images) if one.images and other.images else (one.recorded, other.recorded)
    if before["data"] != after["data"]:
        return "data"
    same = before["split"] == after["split"] and one.results.met.images == other.results.met.images
    return None if same else "test images"


def headline(runs: Sequence[ComparedRun], pairs: Sequence[PairRow] = ()) -> ComparisonVerdict:
    """Which run has the most robust method, if that is beyond chance against the best of every other run.

    Where two runs met the same images, the interval of the difference decides, if it is among ``pairs``; otherwise
    whether the intervals of the two accuracies overlap. Under other attacks or on other data there is no winner.
    """
    winner, *rest = sorted(runs, key=lambda run: -run.best.robust)
    first, others = winner.best, [(run, differs(winner, run)) for run in rest]
    for kind in ("attacks", "data"):
        if any(what == kind for _, what in others):
            return ComparisonVerdict(f"No winner: the runs met different {kind}")
    other_images = any(what is not None for _, what in others)
    for run, what in others:
        second = run.best
        if not told_apart(first, second, () if what else pairs):
            both = " and ".join(
                f"{score.title} of {of.name} ({as_percent(score.robust)})"
                for score, of in ((first, winner), (second, run))
            )
            return ComparisonVerdict(
                f"No winner: {both}{', on different test images,' if what else ''} are within chance"
            )
    on = ", each on its own test images" if other_images else ""
    return ComparisonVerdict(
        f"{first.title} of {winner.name} is the most robust: {as_percent(first.robust)}{on}", first.key
    )


def curves_figure(runs: Sequence[ComparedRun]) -> Figure:
    """Robust and clean accuracy against t, one colour a run."""
    figure, axes = single_axes(3.6)
    log_axis(axes.xaxis)
    highest = 0.0
    for run, colour, marker in zip(runs, cycle((ROBUST, CLEAN, INK, MUTED)), cycle("osD^"), strict=False):
        curve = run.results.curve
        for kind, style, face in (("robust", "-", colour), ("clean", ":", "none")):
            values = [getattr(row, kind) for row in curve.test]
            highest = max(highest, *values)
            axes.plot(
                curve.times, values, color=colour, linestyle=style, marker=marker, markersize=3.5,
                markerfacecolor=face, label=run.name if kind == "robust" else None,
            )  # fmt: skip
        axes.axhline(run.results.methods["ntk"].robust, color=colour, linestyle=DASHED, linewidth=1.0)
    accuracy_axis(axes, highest)
    axes.set_xlabel("training time t (one for all samples)")
    accuracy_legend(figure)
    return figure


def _differing(values: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Keys that not all have alike, with the value of each; a dash where one lacks it."""
    tables = [dict(flatten(v)) for v in values]
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = [(key, [table.get(key, "–") for table in tables]) for key in keys]
    return [row for row in rows if len(set(row[1])) > 1]


def _times(runs: Sequence[ComparedRun]) -> list[tuple[str, list[str]]]:
    tables = [{row.title: row.duration for row in stages(run.results.seconds)} for run in runs]
    names = dict.fromkeys(name for table in tables for name in table)
    ordered = sorted(names, key=lambda name: name == "Total")  # which a stage that only some runs have would follow
    return [(name, [table.get(name, "–") for table in tables]) for name in ordered]
