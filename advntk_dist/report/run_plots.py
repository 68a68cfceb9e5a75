"""Plots of a run: methods, the degeneration curve, training, training times, the spectrum of the kernel."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from advntk_dist.evaluation.statistics import wilson_interval
from advntk_dist.report.inputs import (
    DegenerationCurve,
    FloatArray,
    IntArray,
    KernelSpectrum,
    TrainingHistory,
    running_mean,
)
from advntk_dist.report.judgements import MethodScore
from advntk_dist.report.style import (
    CLEAN,
    INK,
    MUTED,
    ROBUST,
    accuracy_axis,
    accuracy_legend,
    headroom,
    log_axis,
    new_figure,
    note,
    percent_axis,
    ratio_axis,
    short,
    title,
)
from advntk_dist.results.schema import MethodRow
from advntk_dist.text import as_number, as_percent

_DASHED, _DOTTED = (0, (4, 3)), (0, (1, 2))
_CLASSES = 20  # more boxes than this cannot be told apart
_FAR = 4.0  # times that differ by more than this factor want a log axis


def methods_figure(scores: tuple[MethodScore, ...]) -> Figure:
    """Clean and robust accuracy of each method side by side, with the 95% intervals."""
    figure = new_figure(3.1)
    axes = figure.add_subplot()
    centres = np.arange(len(scores), dtype=np.float64)
    bars = (
        ("clean", -0.2, CLEAN, [(s.clean, *s.clean_interval) for s in scores]),
        ("robust", 0.2, ROBUST, [(s.robust, *s.robust_interval) for s in scores]),
    )
    for label, offset, colour, values in bars:
        axes.bar(centres + offset, [value for value, _, _ in values], width=0.36, color=colour, label=label)
        for x, (value, low, high) in zip(centres + offset, values, strict=True):
            axes.plot([x, x], [low, high], color=INK, linewidth=1.3, solid_capstyle="butt")
            note(axes, as_percent(value), (x, high), (0, 2), INK, ha="center", va="bottom")
    axes.set_xticks(centres, [textwrap.fill(short(score.title, 28), 14) for score in scores])
    axes.tick_params(axis="x", length=0, labelsize=9, labelcolor=INK)
    axes.grid(visible=False, axis="x")
    accuracy_axis(axes, max(max(score.clean, score.robust) for score in scores))
    accuracy_legend(figure)
    return figure


def methods_rows(scores: tuple[MethodScore, ...]) -> list[dict[str, Any]]:
    """The accuracies of each method, the ends of an interval in columns of their own."""
    return [{"method": score.key} | flat(score) for score in scores]


def flat(row: MethodRow) -> dict[str, Any]:
    """Accuracies with the ends of their intervals, and the number of images."""
    return {
        f"{kind}{end}": value
        for kind, accuracy, ends in (
            ("clean", row.clean, row.clean_interval),
            ("robust", row.robust, row.robust_interval),
        )
        for end, value in zip(("", "_low", "_high"), (accuracy, *ends), strict=True)
    } | {"n_test": row.n_test}


def degeneration_figure(curve: DegenerationCurve) -> Figure:
    """Clean and robust accuracy against t on a log axis, t = infinity as dashed lines, the chosen t marked."""
    figure = new_figure(3.1)
    axes = figure.add_subplot()
    times = np.asarray(curve.times, dtype=np.float64)
    drawn = times > 0  # t = 0 has no place on a log axis
    times = times[drawn]
    log_axis(axes.xaxis)
    lines = (
        ("clean", curve.clean, curve.clean_ntk, CLEAN, "s"),
        ("robust", curve.robust, curve.robust_ntk, ROBUST, "o"),
    )
    for label, values, at_infinity, colour, marker in lines:
        accuracy = np.asarray(values, dtype=np.float64)[drawn]
        low, high = _band(accuracy, curve.n_test)
        axes.fill_between(times, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(times, accuracy, color=colour, marker=marker, markersize=3, label=f"{label}, stopped at t")
        axes.axhline(at_infinity, color=colour, linestyle=_DASHED, linewidth=1.2)
    if math.isfinite(curve.chosen_t) and curve.chosen_t > 0:
        axes.axvline(curve.chosen_t, color=INK, linewidth=1.0, linestyle=_DOTTED)
        at = (curve.chosen_t, 1.0)
        where: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
        note(axes, f"chosen t = {as_number(curve.chosen_t)}", at, (0, 2), INK, **where)
    low_t, high_t = float(times[0]), float(times[-1])
    if low_t == high_t:
        axes.set_xlim(low_t / 10, high_t * 10)
    highest = max(curve.clean_ntk, curve.robust_ntk, float(np.max([curve.clean, curve.robust])))
    _label_infinity(axes, curve, headroom(highest))
    accuracy_axis(axes, highest)
    axes.set_xlabel("training time t (one for all samples)")
    accuracy_legend(figure)
    return figure


def degeneration_rows(curve: DegenerationCurve) -> list[dict[str, Any]]:
    """The accuracies with their intervals at each time; the last is t = infinity, "inf"."""
    times = [*map(float, curve.times), math.inf]
    found: dict[str, FloatArray] = {}
    for kind, values, end in (("clean", curve.clean, curve.clean_ntk), ("robust", curve.robust, curve.robust_ntk)):
        found[kind] = np.append(values, end)
        found[f"{kind}_low"], found[f"{kind}_high"] = _band(found[kind], curve.n_test)
    return [
        {"t": t} | {name: float(values[i]) for name, values in found.items()} | {"n_test": curve.n_test}
        for i, t in enumerate(times)
    ]


def _band(accuracy: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
    low, high = np.array([wilson_interval(float(value), n) for value in accuracy]).T
    return low, high


def _label_infinity(axes: Axes, curve: DegenerationCurve, top: float) -> None:
    """Write the values at t = infinity beside the axes, pushed apart where they would touch."""
    room, end = 0.15 * top, 0.06 * top  # of the axis, for two lines of text and for half of that
    upper, lower = sorted((curve.clean_ntk, curve.robust_ntk), reverse=True)
    if upper - lower < room:
        lower = min(max(0.5 * (upper + lower - room), end), top - end - room)
        upper = lower + room
    clean_at, robust_at = (upper, lower) if curve.clean_ntk >= curve.robust_ntk else (lower, upper)
    chosen = ", chosen" if math.isinf(curve.chosen_t) else ""
    for at, value, colour in ((clean_at, curve.clean_ntk, CLEAN), (robust_at, curve.robust_ntk, ROBUST)):
        place = (1.0, min(max(at, end), top - end))
        text = f"{as_percent(value)}\nat t = ∞{chosen}"
        note(axes, text, place, (5, 0), colour, xycoords=("axes fraction", "data"), va="center")


_LEVELS = ("loss, attacked batch", "robust accuracy, batch")
"""Panels in which the steps of a cycle have their own levels."""


def training_figure(history: TrainingHistory) -> Figure:
    """Four panels over the steps of Adv-NTK: loss, gradient norm, robust accuracy, mean and largest varpi."""
    figure = new_figure(3.9)
    panels = figure.subplots(2, 2, sharex=True)
    steps = np.arange(1, np.size(history.loss) + 1)
    marker = "o" if steps.size < 3 else ""
    for axes, label, values, colour in (
        (panels[0, 0], _LEVELS[0], history.loss, ROBUST),
        (panels[0, 1], "gradient norm", history.grad_norm, ROBUST),
        (panels[1, 0], _LEVELS[1], history.robust, ROBUST),
        (panels[1, 1], "ϖ: largest and mean", history.varpi_max, CLEAN),
    ):
        bold = 1 < history.cycle <= steps.size // 2 and label in _LEVELS
        axes.plot(steps, values, color=colour, marker=marker, markersize=3, alpha=0.35 if bold else 1.0)
        if bold:
            axes.plot(steps[history.cycle - 1 :], running_mean(values, history.cycle), color=colour, linewidth=2.0)
        title(axes, label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))
    norms = np.asarray(history.grad_norm, dtype=np.float64)
    if np.all(norms > 0) and norms.max() > 30 * norms.min():
        log_axis(panels[0, 1].yaxis)
    percent_axis(panels[1, 0])
    panels[1, 1].plot(steps, history.varpi_mean, color=ROBUST, marker=marker, markersize=3)
    for label, values, colour, side in (
        ("largest", history.varpi_max, CLEAN, 1),
        ("mean", history.varpi_mean, ROBUST, -1),
    ):
        end = (float(steps[-1]), float(values[-1]))
        note(panels[1, 1], label, end, (0, 4 * side), colour, ha="right", va="bottom" if side > 0 else "top")
    panels[1, 1].margins(y=0.18)  # room for the labels at the last points
    for axes in panels[1]:
        axes.set_xlabel("step")
    return figure


def training_rows(history: TrainingHistory) -> list[dict[str, Any]]:
    """What was recorded after each step."""
    fields = ("loss", "grad_norm", "robust", "varpi_mean", "varpi_max")
    return [
        {"step": i + 1} | {field: float(getattr(history, field)[i]) for field in fields}
        for i in range(np.size(history.loss))
    ]


def varpi_figure(varpi: FloatArray, y: IntArray, classes: tuple[str, ...]) -> Figure:
    """Histogram of varpi over all samples and, under it on the same axis, a box for each class.

    The axis is logarithmic where all times are positive and differ much, as those of a recipe that trains log varpi do.
    """
    groups = _by_class(np.asarray(varpi), np.asarray(y), classes)
    boxes = 0.5 + 0.2 * len(groups)
    figure = new_figure(2.2 + boxes)
    panels = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, boxes])
    values = np.asarray(varpi, dtype=np.float64)
    low, top = float(values.min()), float(values.max()) or 1.0
    logarithmic = low > 0 and top > _FAR * low
    bins = np.geomspace(low / 1.02, 1.02 * top, 41) if logarithmic else np.linspace(0.0, 1.02 * top, 41)
    panels[0].hist(values, bins=bins.tolist(), color=ROBUST, histtype="stepfilled")
    panels[0].axvline(float(np.median(values)), color=INK, linewidth=1.0, linestyle=_DOTTED)
    panels[0].yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    panels[0].set_ylabel("samples")
    title(panels[0], "all samples (dotted: median)")
    _class_boxes(panels[1], groups, len(groups) == np.unique(np.asarray(y)).size)
    if logarithmic:
        (ratio_axis if top < 1000 * low else log_axis)(panels[-1].xaxis)
    panels[-1].set_xlim(float(bins[0]), float(bins[-1]))
    panels[-1].set_xlabel("ϖ, the training time of a sample")
    return figure


def varpi_rows(varpi: FloatArray, y: IntArray, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """The class and the time of each training sample."""
    rows = enumerate(zip(y, varpi, strict=True))
    return [{"sample": i, "class": classes[int(label)], "varpi": time} for i, (label, time) in rows]


def _class_boxes(axes: Axes, groups: list[tuple[str, FloatArray]], complete: bool) -> None:
    line = {"color": MUTED, "linewidth": 1.0}
    axes.boxplot(
        [group for _, group in groups],
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        widths=0.55,
        patch_artist=True,
        boxprops={"facecolor": ROBUST, "alpha": 0.45, "linewidth": 0},
        medianprops={"color": INK, "linewidth": 1.6},
        whiskerprops=line,
        capprops={**line, "linewidth": 0},
    )
    axes.set_yticks(range(1, len(groups) + 1), [short(name, 14) for name, _ in groups])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    part = "" if complete else ", ten longest and ten shortest"
    title(axes, f"by class{part} (box: half, line: 5% to 95%)")


def _by_class(varpi: FloatArray, y: IntArray, classes: tuple[str, ...]) -> list[tuple[str, FloatArray]]:
    """Times of each class that has samples; of more than 20 classes, the ten at either end of the medians."""
    present = [int(label) for label in np.unique(y)]
    groups = [(classes[label], varpi[y == label]) for label in present]
    if len(groups) > _CLASSES:
        groups.sort(key=lambda group: -float(np.median(group[1])))
        half = _CLASSES // 2
        groups = groups[:half] + groups[-half:]
    return groups


def spectrum_figure(spectrum: KernelSpectrum, chosen_t: float) -> Figure:
    """Eigenvalues against their number on log axes; modes above 1/t are learned by the time t."""
    figure = new_figure(2.7)
    axes = figure.add_subplot()
    values, number = np.asarray(spectrum.eigenvalues), np.arange(1, len(spectrum.eigenvalues) + 1)
    log_axis(axes.xaxis)
    log_axis(axes.yaxis)
    low = np.maximum(values - spectrum.errors, values / 10)
    axes.fill_between(number, low, values + spectrum.errors, color=ROBUST, alpha=0.2, linewidth=0)
    axes.plot(number, values, color=ROBUST, marker="o", markersize=2.5)
    if math.isfinite(chosen_t) and chosen_t > 0:
        axes.axhline(1 / chosen_t, color=INK, linewidth=1.0, linestyle=_DOTTED)
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
        note(axes, f"1/t at the chosen t = {as_number(chosen_t)}", (1.0, 1 / chosen_t), (0, 2), INK, **where)
    axes.set_xlabel("number of the eigenvalue")
    axes.set_ylabel("eigenvalue of the Gram matrix")
    return figure


def spectrum_rows(spectrum: KernelSpectrum) -> list[dict[str, Any]]:
    """Each eigenvalue with the bound of its error."""
    pairs = zip(spectrum.eigenvalues, spectrum.errors, strict=True)
    return [{"number": i, "eigenvalue": float(v), "error": float(e)} for i, (v, e) in enumerate(pairs, start=1)]
