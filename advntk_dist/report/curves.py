"""Line plots: the degeneration curve and the training history."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from advntk_dist.evaluation.statistics import wilson_interval
from advntk_dist.report.inputs import DegenerationCurve, FloatArray, TrainingHistory, running_mean
from advntk_dist.report.scores import as_number, as_percent
from advntk_dist.report.style import Theme, headroom, log_axis, new_figure, percent_axis, title

_LEVELS = ("loss, attacked batch", "robust accuracy, batch")
"""Panels in which the steps of a cycle have their own levels."""


def degeneration_figure(curve: DegenerationCurve, theme: Theme) -> Figure:
    """Clean and robust accuracy against t on a log axis, t = infinity as dashed lines, the chosen t marked."""
    figure = new_figure(3.1)
    axes = figure.add_subplot()
    times = np.asarray(curve.times, dtype=np.float64)
    drawn = times > 0  # t = 0 has no place on a log axis
    times = times[drawn]
    axes.set_xscale("log")
    lines = (
        ("clean", curve.clean, curve.clean_ntk, theme.clean, "s"),
        ("robust", curve.robust, curve.robust_ntk, theme.robust, "o"),
    )
    for label, values, at_infinity, colour, marker in lines:
        accuracy = np.asarray(values, dtype=np.float64)[drawn]
        low, high = _band(accuracy, curve.n_test)
        axes.fill_between(times, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(times, accuracy, color=colour, marker=marker, markersize=3, label=f"{label}, stopped at t")
        axes.axhline(at_infinity, color=colour, linestyle=(0, (4, 3)), linewidth=1.2)
    if math.isfinite(curve.chosen_t) and curve.chosen_t > 0:
        _mark_chosen(axes, curve.chosen_t, theme)
    low_t, high_t = float(times[0]), float(times[-1])
    if low_t == high_t:
        axes.set_xlim(low_t / 10, high_t * 10)
    highest = max(curve.clean_ntk, curve.robust_ntk, float(np.nanmax([curve.clean, curve.robust], initial=0.0)))
    top = headroom(highest)
    _label_infinity(axes, curve, top, theme)
    axes.set_ylim(0.0, top)
    percent_axis(axes)
    log_axis(axes.xaxis)
    axes.set_xlabel("training time t (one for all samples)")
    axes.set_ylabel("test accuracy")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.8, columnspacing=1.4)
    return figure


def _band(accuracy: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
    ends = [wilson_interval(float(value), n) if math.isfinite(value) else (math.nan,) * 2 for value in accuracy]
    low, high = np.asarray(ends, dtype=np.float64).T
    return low, high


def _mark_chosen(axes: Axes, chosen: float, theme: Theme) -> None:
    axes.axvline(chosen, color=theme.ink, linewidth=1.0, linestyle=(0, (1, 2)))
    axes.annotate(
        f"chosen t = {as_number(chosen)}",
        (chosen, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color=theme.ink,
        fontsize=8,
    )


def _label_infinity(axes: Axes, curve: DegenerationCurve, top: float, theme: Theme) -> None:
    """Write the values at t = infinity beside the axes, pushed apart where they would touch."""
    room, end = 0.15 * top, 0.06 * top  # of the axis, for two lines of text and for half of that
    upper, lower = sorted((curve.clean_ntk, curve.robust_ntk), reverse=True)
    if upper - lower < room:
        lower = min(max(0.5 * (upper + lower - room), end), top - end - room)
        upper = lower + room
    clean_at, robust_at = (upper, lower) if curve.clean_ntk >= curve.robust_ntk else (lower, upper)
    chosen = ", chosen" if math.isinf(curve.chosen_t) else ""
    for at, value, colour in (
        (clean_at, curve.clean_ntk, theme.clean),
        (robust_at, curve.robust_ntk, theme.robust),
    ):
        axes.annotate(
            f"{as_percent(value)}\nat t = ∞{chosen}",
            (1.0, min(max(at, end), top - end)),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=8,
        )


def training_figure(history: TrainingHistory, theme: Theme) -> Figure:
    """Four panels over the steps of Adv-NTK: loss, gradient norm, robust accuracy, mean and largest varpi."""
    figure = new_figure(3.9)
    panels = figure.subplots(2, 2, sharex=True)
    steps = np.arange(1, np.size(history.loss) + 1)
    marker = "o" if steps.size < 3 else ""
    for axes, label, values, colour in (
        (panels[0, 0], _LEVELS[0], history.loss, theme.robust),
        (panels[0, 1], "gradient norm", history.grad_norm, theme.robust),
        (panels[1, 0], _LEVELS[1], history.robust, theme.robust),
        (panels[1, 1], "ϖ: largest and mean", history.varpi_max, theme.clean),
    ):
        bold = 1 < history.cycle <= steps.size // 2 and label in _LEVELS
        axes.plot(steps, values, color=colour, marker=marker, markersize=3, alpha=0.35 if bold else 1.0)
        if bold:
            axes.plot(steps[history.cycle - 1 :], running_mean(values, history.cycle), color=colour, linewidth=2.0)
        title(axes, label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))
    norms = np.asarray(history.grad_norm, dtype=np.float64)
    if np.all(norms > 0) and norms.max() > 30 * norms.min():
        panels[0, 1].set_yscale("log")
        log_axis(panels[0, 1].yaxis)
    percent_axis(panels[1, 0])
    panels[1, 1].plot(steps, history.varpi_mean, color=theme.robust, marker=marker, markersize=3)
    for label, values, colour, side in (
        ("largest", history.varpi_max, theme.clean, 1),
        ("mean", history.varpi_mean, theme.robust, -1),
    ):
        panels[1, 1].annotate(
            label,
            (float(steps[-1]), float(values[-1])),
            xytext=(0, 4 * side),
            textcoords="offset points",
            ha="right",
            va="bottom" if side > 0 else "top",
            color=colour,
            fontsize=8,
        )
    panels[1, 1].margins(y=0.18)  # room for the labels at the last points
    for axes in panels[1]:
        axes.set_xlabel("step")
    return figure
