"""Plots of a finite-width run: gaps against width, networks against the closed form, adversarial training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from advntk_dist.report.scores import as_number
from advntk_dist.report.style import Theme, headroom, log_axis, new_figure, percent_axis, title

PANELS = (
    ("gap_train", "gap of outputs, training images"),
    ("gap_test", "gap of outputs, test images"),
    ("ntk_change", "relative change of the NTK"),
    ("ark_change", "relative change of ARK"),
)


def width_figure(flow: dict[str, Any], theme: Theme) -> Figure:
    """Four quantities against width on log axes: each network a dot, the fitted power law a line."""
    figure = new_figure(4.2)
    panels = figure.subplots(2, 2, sharex=True)
    widths = np.array([row["width"] for row in flow["rows"]], dtype=np.float64)
    ends = np.array([widths.min(), widths.max()])
    for axes, (field, label) in zip(panels.flat, PANELS, strict=True):
        line = flow["slopes"][field]
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.plot(widths, [row[field] for row in flow["rows"]], "o", color=theme.robust, markersize=3.5, alpha=0.7)
        axes.plot(ends, np.exp(line["intercept"]) * ends ** line["slope"], color=theme.ink, linewidth=1.2)
        title(axes, label)
        axes.annotate(
            f"slope {line['slope']:.2f} ({line['low']:.2f} to {line['high']:.2f})",
            (0.03, 0.04),
            xycoords="axes fraction",
            color=theme.ink,
            fontsize=8,
        )
        axes.margins(y=0.3)
        log_axis(axes.yaxis)
        _plain_widths(axes, sorted(set(widths.tolist())))
    for axes in panels[1]:
        axes.set_xlabel("width")
    return figure


def _plain_widths(axes: Axes, widths: Sequence[float]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(widths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))


def ensemble_figure(closed: dict[str, Any], theme: Theme) -> Figure:
    """Distance of the seeds' mean from the closed form over time, and what chance makes, for the extreme widths."""
    figure = new_figure(2.9)
    axes = figure.add_subplot()
    times = np.asarray(closed["times"], dtype=np.float64)
    drawn = times > 0
    axes.set_xscale("log")
    for found, colour in ((closed["widths"][0], theme.clean), (closed["widths"][-1], theme.robust)):
        sharp = found["start_removed"]
        distance, error = (np.asarray(sharp[key], dtype=np.float64)[drawn] for key in ("distance", "standard_error"))
        axes.plot(times[drawn], distance, "o-", color=colour, markersize=3, label=f"width {found['width']}")
        axes.plot(times[drawn], error, color=colour, linestyle=(0, (4, 3)), linewidth=1.2)
    axes.set_ylim(bottom=0.0)
    log_axis(axes.xaxis)
    axes.set_xlabel("training time t")
    axes.set_ylabel("distance, root mean square")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.8)
    return figure


def training_figure(training: dict[str, Any], theme: Theme) -> Figure:
    """Clean and robust test accuracy, and robust accuracy on the training batches, over the steps; a line a seed."""
    figure = new_figure(3.1)
    axes = figure.add_subplot()
    for place, points in enumerate(training["seeds"].values()):
        steps = [point["step"] for point in points]
        for label, field, colour, style in (
            ("clean, test", "clean", theme.clean, "-"),
            ("robust, test", "robust", theme.robust, "-"),
            ("robust, training batches", "robust_train", theme.robust, (0, (2, 2))),
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
    axes.set_ylim(0.0, headroom(max(every)))
    percent_axis(axes)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: as_number(int(value))))
    axes.set_xlabel("step")
    axes.set_ylabel("accuracy")
    figure.legend(loc="outside upper left", ncols=3, handlelength=1.8, columnspacing=1.2)
    return figure
