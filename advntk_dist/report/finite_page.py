"""The page of a finite-width run: report.html and its plots, in the style of the other reports."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from advntk_dist.evaluation.statistics import wilson_interval
from advntk_dist.report.attacks import attack_words
from advntk_dist.report.judgements import MethodScore, MethodsTable, made, method_scores
from advntk_dist.report.page import facts, flatten, render, stages, write_page
from advntk_dist.report.run_plots import methods_plot
from advntk_dist.report.style import (
    CLEAN,
    DASHED,
    INK,
    ROBUST,
    Plot,
    accuracy_axis,
    accuracy_legend,
    log_axis,
    new_figure,
    plot,
    single_axes,
    title,
)
from advntk_dist.results.schema import FiniteNetworksRow, FiniteWidthResults
from advntk_dist.storage.paths import Location
from advntk_dist.text import as_number, as_percent, as_points, disjoint, join


def finite_scores(results: FiniteWidthResults) -> tuple[MethodScore, ...]:
    """Rows of the table, those of finite networks with what they are."""
    details = {}
    for key, row in results.methods.items():
        if isinstance(row, FiniteNetworksRow):
            networks = f"mean of {len(row.steps)} networks" if len(row.steps) > 1 else "one network"
            steps = ", ".join(f"{step:,}" for step in row.steps)
            details[key] = f"width {results.training['width']}, {networks}, step {steps}"
        else:
            details[key] = made(key, row)
    return method_scores(results.methods, details)


def make_plots(results: FiniteWidthResults) -> dict[str, Plot]:
    """Every plot in page order."""
    flow, training = results.flow, results.training
    closed, seeds = flow["closed_form"], len({row["seed"] for row in flow["rows"]})
    return {
        "finite_width": plot(
            lambda: width_figure(flow),
            flow["rows"],
            width_caption(flow["slopes"]),
            "Four plots of a quantity against width on log axes with fitted lines; the slopes are in the table below.",
        ),
        "ensemble": plot(
            lambda: ensemble_figure(closed),
            ensemble_rows(closed),
            ensemble_caption(closed, seeds),
            "Distance of the mean of finite networks from the closed form over training time, with its standard error.",
        ),
        "adversarial_training": plot(
            lambda: training_figure(training),
            [{"seed": seed} | point for seed, points in training["seeds"].items() for point in points],
            training_caption(training, results.n_test),
            "Clean and robust accuracy over the steps of adversarial training.",
        ),
        "methods": methods_plot(finite_scores(results), attack_words(results.attack)),
    }


def write_finite_report(results: FiniteWidthResults, config_toml: str, folder: Location) -> Location:
    """Write report.html and its plots into a run directory; the same results give the same bytes.

    Raises
    ------
    RequestError
        If the folder cannot be written to.
    """
    plots, scores, under = make_plots(results), finite_scores(results), attack_words(results.attack)
    page = render(
        "finite_width.html",
        headline=headline(scores, under),
        facts=[*facts(results), ("Attack", under)],
        table=MethodsTable(scores, (), frozenset({max(scores, key=lambda score: score.robust).title})),
        plots=plots,
        slopes=results.flow["slopes"],
        stages=stages(results.seconds),
        config=config_toml,
        environment=flatten(results.environment),
    )
    return write_page(folder, page, plots)


PANELS = (
    ("gap_train", "gap of outputs, training images", "the gap on training images"),
    ("gap_test", "gap of outputs, test images", "the gap on test images"),
    ("ntk_change", "relative change of the NTK", "the change of the NTK"),
    ("ark_change", "relative change of ARK", "the change of ARK"),
)
"""Quantities that a power law is fitted to: their keys, and what they are called in a title and in a sentence."""


def width_figure(flow: dict[str, Any]) -> Figure:
    """Four quantities against width on log axes: each network a dot, the fitted power law a line."""
    figure = new_figure(4.2)
    panels = figure.subplots(2, 2, sharex=True)
    widths = np.array([row["width"] for row in flow["rows"]], dtype=np.float64)
    ends = np.array([widths.min(), widths.max()])
    for axes, (field, label, _) in zip(panels.flat, PANELS, strict=True):
        line = flow["slopes"][field]
        log_axis(axes.xaxis)
        log_axis(axes.yaxis)
        axes.plot(widths, [row[field] for row in flow["rows"]], "o", color=ROBUST, markersize=3.5, alpha=0.7)
        axes.plot(ends, np.exp(line["intercept"]) * ends ** line["slope"], color=INK, linewidth=1.2)
        title(axes, label)
        axes.annotate(
            f"slope {line['slope']:.2f} ({line['low']:.2f} to {line['high']:.2f})",
            (0.03, 0.04),
            xycoords="axes fraction",
            color=INK,
            fontsize=8,
        )
        axes.margins(y=0.3)
        axes.xaxis.set_major_locator(FixedLocator(sorted(set(widths.tolist()))))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    for axes in panels[1]:
        axes.set_xlabel("width")
    return figure


def ensemble_figure(closed: dict[str, Any]) -> Figure:
    """Distance of the seeds' mean from the closed form over time, and what chance makes, for the extreme widths."""
    figure, axes = single_axes(2.9)
    times = np.asarray(closed["times"], dtype=np.float64)
    drawn = times > 0
    log_axis(axes.xaxis)
    for found, colour in ((closed["widths"][0], CLEAN), (closed["widths"][-1], ROBUST)):
        sharp = found["start_removed"]
        distance, error = (np.asarray(sharp[key], dtype=np.float64)[drawn] for key in ("distance", "standard_error"))
        axes.plot(times[drawn], distance, "o-", color=colour, markersize=3, label=f"width {found['width']}")
        axes.plot(times[drawn], error, color=colour, linestyle=DASHED, linewidth=1.2)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("training time t")
    axes.set_ylabel("distance, root mean square")
    accuracy_legend(figure)
    return figure


def ensemble_rows(closed: dict[str, Any]) -> list[dict[str, Any]]:
    """The distance at each time and width, the decay of the random starts taken off, and its standard error."""
    return [
        {"width": found["width"], "t": t}
        | {key: found["start_removed"][key][i] for key in ("distance", "standard_error")}
        for found in closed["widths"]
        for i, t in enumerate(closed["times"])
    ]


def training_figure(training: dict[str, Any]) -> Figure:
    """Clean and robust test accuracy, and robust accuracy on the training batches, over the steps; a line a seed."""
    figure, axes = single_axes(3.1)
    for place, points in enumerate(training["seeds"].values()):
        steps = [point["step"] for point in points]
        for label, field, colour, style in (
            ("clean, test", "clean", CLEAN, "-"),
            ("robust, test", "robust", ROBUST, "-"),
            ("robust, training batches", "robust_train", ROBUST, (0, (2, 2))),
        ):
            axes.plot(
                steps,
                [point[field] for point in points],
                color=colour,
                linestyle=style,
                marker="o" if len(steps) < 3 else "",
                label=label if place == 0 else None,
            )
    every = [point[f] for points in training["seeds"].values() for point in points for f in ("clean", "robust_train")]
    accuracy_axis(axes, max(every), "accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: as_number(int(value))))
    axes.set_xlabel("step")
    accuracy_legend(figure, columns=3)
    return figure


def width_caption(slopes: dict[str, Any]) -> str:
    """Sentence under the plot against width."""
    falls = [name for field, _, name in PANELS if slopes[field]["high"] < 0]
    rest = [name for field, _, name in PANELS if slopes[field]["high"] >= 0]
    gap = slopes["gap_test"]
    verdict = f"{join(falls)} fall{'s' if len(falls) == 1 else ''} with width" if falls else "nothing falls with width"
    doubt = f"; for {join(rest)} these networks do not show it" if rest else ""
    return (
        f"Each dot is a network trained to the last time: {verdict}{doubt}; the gap on test images goes as width to "
        f"the power {gap['slope']:.2f} (95% interval {gap['low']:.2f} to {gap['high']:.2f})."
    )


def ensemble_caption(closed: dict[str, Any], seeds: int) -> str:
    """Sentence under the comparison with the closed form."""
    narrow, widest = closed["widths"][0], closed["widths"][-1]
    far, chance = (max(widest["start_removed"][key]) for key in ("distance", "standard_error"))
    within = float(np.mean(widest["within"]))
    return (
        f"Solid: distance between the mean of {seeds} networks, the known decay of their random starts taken off, and "
        f"the closed form of infinite width; dashed: the standard error of that mean; at width {widest['width']} the "
        f"distance is at most {as_number(far)} with a standard error of {as_number(chance)} (width {narrow['width']}: "
        f"{as_number(max(narrow['start_removed']['distance']))}; outputs of {as_number(closed['size'])}), and "
        f"{as_percent(within)} of the closed form's values lie in the 95% intervals of the plain means."
    )


def training_caption(training: dict[str, Any], n_test: int) -> str:
    """Sentence under adversarial training: whether robust overfitting is seen."""
    curves = np.array([[point["robust"] for point in points] for points in training["seeds"].values()])
    steps = [point["step"] for point in next(iter(training["seeds"].values()))]
    mean = curves.mean(axis=0)
    at = int(mean.argmax())
    peak, end = float(mean[at]), float(mean[-1])
    numbers = f"{as_percent(peak)} at step {as_number(steps[at])} against {as_percent(end)} at the last"
    fitted = [points[-1]["robust_train"] for points in training["seeds"].values()]
    told = f"on attacked training batches it ends at {as_percent(float(np.mean(fitted)))}"
    if at == len(steps) - 1:
        return (
            f"No robust overfitting in these steps: robust test accuracy is highest at the end ({as_percent(end)}); "
            f"{told}."
        )
    if not disjoint(wilson_interval(peak, n_test), wilson_interval(end, n_test)):
        return (
            f"Robust test accuracy is {numbers}, a loss of {as_points(peak - end)} inside the 95% intervals, so robust "
            f"overfitting is not shown; {told}."
        )
    return f"Robust overfitting: robust test accuracy is {numbers}, a loss of {as_points(peak - end)}, while {told}."


def headline(scores: tuple[MethodScore, ...], attack: str) -> str:
    """The best of the finite networks and the best of the infinite-width methods, under this attack alone."""
    ranked = sorted(scores, key=lambda score: -score.robust)
    finite, infinite = (next(s for s in ranked if s.key.startswith("finite_at") == is_) for is_ in (True, False))
    gain = finite.robust - infinite.robust
    side = "ahead of" if gain > 0 else "behind" if gain < 0 else "level with"
    by = "" if gain == 0 else f"{as_points(gain)} "
    doubt = "" if disjoint(finite.robust_interval, infinite.robust_interval) else "; the intervals overlap"
    return (
        f"Under {attack} alone, finite networks are {by}{side} the best infinite-width method: {finite.title} "
        f"{as_percent(finite.robust)}, {infinite.title} {as_percent(infinite.robust)}{doubt}."
    )
