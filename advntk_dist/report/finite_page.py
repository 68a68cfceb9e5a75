"""The page of a finite-width run: report.html and its plots, in the style of the other reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from advntk_dist.evaluation.statistics import wilson_interval
from advntk_dist.report.attacks import attack_words
from advntk_dist.report.judgements import MethodScore, method_scores
from advntk_dist.report.page import facts, flatten, render, stages, total, write_page
from advntk_dist.report.run_plots import methods_figure, methods_rows
from advntk_dist.report.sentences import methods_caption
from advntk_dist.report.style import (
    CLEAN,
    INK,
    ROBUST,
    Plot,
    accuracy_axis,
    accuracy_legend,
    log_axis,
    new_figure,
    plot,
    title,
)
from advntk_dist.storage.paths import Location
from advntk_dist.text import as_number, as_percent, as_points, disjoint, join

_TITLES = {"finite_at": "Finite AT, last step", "finite_at_best": "Finite AT, best step"}


def finite_scores(results: dict[str, Any]) -> tuple[MethodScore, ...]:
    """Rows of the table, those of finite networks with their names and what they are."""
    width, seeds = results["training"]["width"], len(results["training"]["seeds"])
    rows = []
    for score in method_scores(results):
        if score.key in _TITLES:
            steps = ", ".join(f"{step:,}" for step in results["methods"][score.key]["steps"])
            networks = f"mean of {seeds} networks" if seeds > 1 else "one network"
            detail = f"width {width}, {networks}, step {steps}"
            score = score.model_copy(update={"title": _TITLES[score.key], "detail": detail})
        rows.append(score)
    return tuple(rows)


def make_plots(results: dict[str, Any]) -> dict[str, Plot]:
    """Every plot in page order."""
    scores, flow, training = finite_scores(results), results["flow"], results["training"]
    seeds = len({row["seed"] for row in flow["rows"]})
    return {
        "finite_width": plot(
            lambda: width_figure(flow),
            flow["rows"],
            width_caption(flow),
            "Four plots of a quantity against width on log axes with fitted lines; the slopes are in the table below.",
        ),
        "ensemble": plot(
            lambda: ensemble_figure(flow["closed_form"]),
            ensemble_rows(flow["closed_form"]),
            ensemble_caption(flow["closed_form"], seeds),
            "Distance of the mean of finite networks from the closed form over training time, with its standard error.",
        ),
        "adversarial_training": plot(
            lambda: training_figure(training),
            [{"seed": seed} | point for seed, points in training["seeds"].items() for point in points],
            training_caption(training, results["n_test"]),
            "Clean and robust accuracy over the steps of adversarial training.",
        ),
        "methods": plot(
            lambda: methods_figure(scores),
            methods_rows(scores),
            methods_caption(attack_words(results["attack"])),
            "Bars of clean and robust accuracy of each method; the numbers are in the table above.",
        ),
    }


def write_finite_report(results: dict[str, Any], config_toml: str, folder: Location) -> Location:
    """Write report.html and its plots into a run directory; the same results give the same bytes.

    Raises
    ------
    RequestError
        If the folder cannot be written to.
    """
    plots, scores = make_plots(results), finite_scores(results)
    page = render(
        "finite_width.html",
        headline=headline(scores, attack_words(results["attack"])),
        facts=[*facts(results), ("Attack", attack_words(results["attack"]))],
        scores=scores,
        best={max(scores, key=lambda score: score.robust).title},
        plots=plots,
        slopes=results["flow"]["slopes"],
        stages=(timings := stages(results["seconds"])),
        total=total(timings),
        config=config_toml,
        environment=flatten(results["environment"]),
    )
    return write_page(folder, page, plots)


PANELS = (
    ("gap_train", "gap of outputs, training images"),
    ("gap_test", "gap of outputs, test images"),
    ("ntk_change", "relative change of the NTK"),
    ("ark_change", "relative change of ARK"),
)


def width_figure(flow: dict[str, Any]) -> Figure:
    """Four quantities against width on log axes: each network a dot, the fitted power law a line."""
    figure = new_figure(4.2)
    panels = figure.subplots(2, 2, sharex=True)
    widths = np.array([row["width"] for row in flow["rows"]], dtype=np.float64)
    ends = np.array([widths.min(), widths.max()])
    for axes, (field, label) in zip(panels.flat, PANELS, strict=True):
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
        _plain_widths(axes, sorted(set(widths.tolist())))
    for axes in panels[1]:
        axes.set_xlabel("width")
    return figure


def _plain_widths(axes: Axes, widths: Sequence[float]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(widths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))


def ensemble_figure(closed: dict[str, Any]) -> Figure:
    """Distance of the seeds' mean from the closed form over time, and what chance makes, for the extreme widths."""
    figure = new_figure(2.9)
    axes = figure.add_subplot()
    times = np.asarray(closed["times"], dtype=np.float64)
    drawn = times > 0
    log_axis(axes.xaxis)
    for found, colour in ((closed["widths"][0], CLEAN), (closed["widths"][-1], ROBUST)):
        sharp = found["start_removed"]
        distance, error = (np.asarray(sharp[key], dtype=np.float64)[drawn] for key in ("distance", "standard_error"))
        axes.plot(times[drawn], distance, "o-", color=colour, markersize=3, label=f"width {found['width']}")
        axes.plot(times[drawn], error, color=colour, linestyle=(0, (4, 3)), linewidth=1.2)
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
    figure = new_figure(3.1)
    axes = figure.add_subplot()
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


_NAMES = {
    "gap_train": "the gap on training images",
    "gap_test": "the gap on test images",
    "ntk_change": "the change of the NTK",
    "ark_change": "the change of ARK",
}


def width_caption(flow: dict[str, Any]) -> str:
    """Sentence under the plot against width."""
    falls = [name for field, name in _NAMES.items() if flow["slopes"][field]["high"] < 0]
    rest = [name for field, name in _NAMES.items() if flow["slopes"][field]["high"] >= 0]
    gap = flow["slopes"]["gap_test"]
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
    finite = max((s for s in scores if s.key.startswith("finite_at")), key=lambda s: s.robust)
    infinite = max((s for s in scores if not s.key.startswith("finite_at")), key=lambda s: s.robust)
    gain = finite.robust - infinite.robust
    side = "ahead of" if gain > 0 else "behind" if gain < 0 else "level with"
    by = "" if gain == 0 else f"{as_points(gain)} "
    doubt = "" if disjoint(finite.robust_interval, infinite.robust_interval) else "; the intervals overlap"
    return (
        f"Under {attack} alone, finite networks are {by}{side} the best infinite-width method: {finite.title} "
        f"{as_percent(finite.robust)}, {infinite.title} {as_percent(infinite.robust)}{doubt}."
    )
