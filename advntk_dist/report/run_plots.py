"""Plots of a run: methods, the degeneration curve, training, training times, the spectrum of the kernel."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from advntk_dist.report.inputs import (
    DegenerationCurve,
    FloatArray,
    IntArray,
    KernelSpectrum,
    TrainingHistory,
    running_mean,
)
from advntk_dist.report.judgements import MethodScore, title_of
from advntk_dist.report.style import (
    CLEAN,
    DOTTED,
    INK,
    KINDS,
    MUTED,
    ROBUST,
    Plot,
    accuracy_axis,
    accuracy_legend,
    accuracy_lines,
    headroom,
    limit_lines,
    log_axis,
    new_figure,
    note,
    percent_axis,
    plot,
    ratio_axis,
    short,
    single_axes,
    title,
)
from advntk_dist.results.schema import MethodRow, RadiusResults
from advntk_dist.text import as_number, as_percent

_CLASSES = 20  # more boxes than this cannot be told apart
_FAR = 4.0  # times that differ by more than this factor want a log axis

Rows = Sequence[Mapping[str, Any]]
"""The rows of a CSV, which a figure draws."""


def flat(row: MethodRow) -> dict[str, Any]:
    """Accuracies with the ends of their intervals in columns of their own, and the number of images."""
    kinds = (("clean", row.clean, row.clean_interval), ("robust", row.robust, row.robust_interval))
    columns = {
        f"{kind}{end}": value
        for kind, accuracy, ends in kinds
        for end, value in zip(("", "_low", "_high"), (accuracy, *ends), strict=True)
    }
    return columns | {"n_test": row.n_test}


def methods_plot(scores: Sequence[MethodScore], under: str) -> Plot:
    """Clean and robust accuracy of each method side by side; ``under`` names the attacks."""
    return plot(
        lambda: methods_figure(scores),
        [{"method": score.key} | flat(score) for score in scores],
        f"Accuracy on clean test images (grey) and under {under} (colour); the lines are 95% intervals.",
        "Bars of clean and robust accuracy of each method; the numbers are in the table above.",
    )


def methods_figure(scores: Sequence[MethodScore]) -> Figure:
    """Clean and robust accuracy of each method side by side, with the 95% intervals."""
    figure, axes = single_axes(3.1)
    centres, rows = np.arange(len(scores), dtype=np.float64), [flat(score) for score in scores]
    for (kind, colour, _), offset in zip(KINDS, (-0.2, 0.2), strict=True):
        axes.bar(centres + offset, [row[kind] for row in rows], width=0.36, color=colour, label=kind)
        for x, row in zip(centres + offset, rows, strict=True):
            low, high = row[f"{kind}_low"], row[f"{kind}_high"]
            axes.plot([x, x], [low, high], color=INK, linewidth=1.3, solid_capstyle="butt")
            note(axes, as_percent(row[kind]), (x, high), (0, 2), INK, ha="center", va="bottom")
    axes.set_xticks(centres, [textwrap.fill(short(score.title, 28), 14) for score in scores])
    axes.tick_params(axis="x", length=0, labelsize=9, labelcolor=INK)
    axes.grid(visible=False, axis="x")
    accuracy_axis(axes, max(max(score.clean, score.robust) for score in scores))
    accuracy_legend(figure)
    return figure


def degeneration_plot(curve: DegenerationCurve) -> Plot:
    """Accuracies over one training time for all samples; the last row is t = infinity, "inf"."""
    limit = flat(curve.limit)
    points = [{"t": t} | flat(row) for t, row in zip(curve.times, curve.rows, strict=True)]
    best = max(row.robust for row in curve.rows)
    images = curve.rows[0].n_test
    return plot(
        lambda: degeneration_figure(points, limit, curve.chosen_t),
        [*points, {"t": math.inf} | limit],
        "One training time t for all samples: dashed lines are the plain NTK, the limit of t to infinity; bands are "
        f"95% intervals of {images:,} test images; the validation images chose t = {as_number(curve.chosen_t)}.",
        f"Clean and robust accuracy against training time: robust accuracy is at most {as_percent(best)} at a finite "
        f"time and {as_percent(curve.limit.robust)} at infinity; clean accuracy at infinity is "
        f"{as_percent(curve.limit.clean)}.",
    )


def degeneration_figure(points: Rows, limit: Mapping[str, Any], chosen_t: float) -> Figure:
    """Clean and robust accuracy against t on a log axis, t = infinity as dashed lines, the chosen t marked."""
    figure, axes = single_axes(3.1)
    log_axis(axes.xaxis)
    accuracy_lines(axes, points, "t", "{}, stopped at t")
    limit_lines(axes, limit)
    axes.axvline(chosen_t, color=INK, linewidth=1.0, linestyle=DOTTED)
    where: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
    note(axes, f"chosen t = {as_number(chosen_t)}", (chosen_t, 1.0), (0, 2), INK, **where)
    low_t, high_t = points[0]["t"], points[-1]["t"]
    if low_t == high_t:
        axes.set_xlim(low_t / 10, high_t * 10)
    highest = max(row[kind] for row in (*points, limit) for kind, _, _ in KINDS)
    _label_infinity(axes, limit, headroom(highest))
    accuracy_axis(axes, highest)
    axes.set_xlabel("training time t (one for all samples)")
    accuracy_legend(figure)
    return figure


def _label_infinity(axes: Axes, limit: Mapping[str, Any], top: float) -> None:
    """Write the values at t = infinity beside the axes, pushed apart where they would touch."""
    room, end = 0.15 * top, 0.06 * top  # of the axis, for two lines of text and for half of that
    kinds = sorted(KINDS, key=lambda kind: -limit[kind[0]])
    upper, lower = (limit[kind] for kind, _, _ in kinds)
    if upper - lower < room:
        lower = min(max(0.5 * (upper + lower - room), end), top - end - room)
        upper = lower + room
    for (kind, colour, _), at in zip(kinds, (upper, lower), strict=True):
        place = (1.0, min(max(at, end), top - end))
        text = f"{as_percent(limit[kind])}\nat t = ∞"
        note(axes, text, place, (5, 0), colour, xycoords=("axes fraction", "data"), va="center")


def radius_plot(over: RadiusResults) -> Plot:
    """Robust accuracy of each method over the radius of the run's norm, by the linearised margin and checked."""
    rows: list[dict[str, Any]] = [
        {"method": key, "norm": each, "radius": r, "robust": robust, "checked": ""}
        for key, method in over.methods.items()
        for each, curve in method.curves.items()
        for r, robust in zip(curve.radii, curve.robust, strict=True)
    ]
    rows += [
        {"method": key, "norm": over.norm, "radius": row.radius, "robust": row.expected, "checked": row.robust}
        for key, method in over.methods.items()
        for row in method.checked
    ]
    gaps = [100 * (row.robust - row.expected) for method in over.methods.values() for row in method.checked]
    errors = "; ".join(
        f"{title_of(key)} {as_percent(m.nonlinearity.median)}, {as_percent(m.nonlinearity.high)}"
        for key, m in over.methods.items()
        if m.nonlinearity is not None
    )
    return plot(
        lambda: radius_figure(over),
        rows,
        f"Robust accuracy over the {over.norm} radius on {over.images:,} test images. Lines: no class overtakes "
        "the true one by the margin linearised at the clean image. Points: the exact predictor under the attack that "
        f"starts from there, {min(gaps):+.1f} to {max(gaps):+.1f} percentage points from the lines; the tables do not "
        "count it. What the linearised margin misses of the true one at its worst point within the run's radius "
        "(dotted), over the median size of margins there (median and 95th percentile of images): "
        f"{errors or 'not known'}. The CSV has the curves in all norms.",
        "Robust accuracy of each method falls with the radius of the attack.",
    )


def radius_figure(over: RadiusResults) -> Figure:
    """Lines by the linearised margin, points by the exact predictor, the run's radius marked."""
    figure, axes = single_axes(2.9)
    norm, radius = over.norm, over.radius
    for (key, method), colour in zip(over.methods.items(), (CLEAN, INK, ROBUST), strict=False):
        curve, checked = method.curves[norm], method.checked
        axes.plot(curve.radii, curve.robust, color=colour, label=title_of(key))
        axes.plot([r.radius for r in checked], [r.robust for r in checked], "o", color=colour, markersize=4)
    axes.axvline(radius, color=INK, linewidth=1.0, linestyle=DOTTED)
    accuracy_axis(axes, max(max(m.curves[norm].robust) for m in over.methods.values()))
    axes.set_xlim(0, 2.05 * radius if radius else None)
    axes.set_xlabel(f"radius ({norm}, pixel range 1)")
    accuracy_legend(figure)
    return figure


_LEVELS = ("loss, attacked batch", "robust accuracy, batch")
"""Panels in which the steps of a cycle have their own levels."""


def training_plot(history: TrainingHistory) -> Plot:
    """What was recorded after each step of Adv-NTK."""
    fields = ("loss", "grad_norm", "robust", "varpi_mean", "varpi_max")
    columns = zip(*(map(float, getattr(history, field)) for field in fields), strict=True)
    return plot(
        lambda: training_figure(history),
        [{"step": i} | dict(zip(fields, row, strict=True)) for i, row in enumerate(columns, 1)],
        training_caption(history),
        "Loss, gradient norm, robust accuracy and ϖ over the steps of Adv-NTK.",
    )


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


def training_caption(history: TrainingHistory) -> str:
    """Sentence under the training curves."""
    steps, mean = np.size(history.loss), as_number(float(history.varpi_mean[-1]))
    opening = f"Over {steps:,} step{'' if steps == 1 else 's'} of Adv-NTK"
    return f"{opening} {_loss(history)}, and ϖ reaches a mean of {mean}."


def _loss(history: TrainingHistory) -> str:
    """What became of the loss on attacked batches, from whole cycles, which saw the same kinds of images."""
    steps, cycle = np.size(history.loss), history.cycle
    if cycle > 1 and steps < 2 * cycle:
        return f"the loss is not compared, as there are less than two cycles of {cycle} steps"
    width = cycle if cycle > 1 else max(1, steps // 10)
    means = running_mean(history.loss, width)
    start, end = as_number(float(means[0])), as_number(float(means[-1]))
    of = f"a cycle of {cycle} steps (bold)" if cycle > 1 else f"{width} steps"
    which = f", the mean of {of}," if width > 1 else ""
    change = "falls" if means[-1] < means[0] else "rises"
    return f"the loss on attacked batches{which} " + (
        f"stays at {end}" if start == end else f"{change} from {start} to {end}"
    )


def varpi_plot(varpi: FloatArray, y: IntArray, classes: tuple[str, ...]) -> Plot:
    """The distribution of the training times, and the class and the time of each training sample."""
    rows = enumerate(zip(y, varpi, strict=True))
    return plot(
        lambda: varpi_figure(varpi, y, classes),
        [{"sample": i, "class": classes[int(label)], "varpi": time} for i, (label, time) in rows],
        _varpi_caption(varpi, y, classes),
        "Histogram of the training times of all samples, with a box for each class.",
    )


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
    panels[0].axvline(float(np.median(values)), color=INK, linewidth=1.0, linestyle=DOTTED)
    panels[0].yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    panels[0].set_ylabel("samples")
    title(panels[0], "all samples (dotted: median)")
    _class_boxes(panels[1], groups, len(groups) == np.unique(np.asarray(y)).size)
    if logarithmic:
        (ratio_axis if top < 1000 * low else log_axis)(panels[-1].xaxis)
    panels[-1].set_xlim(float(bins[0]), float(bins[-1]))
    panels[-1].set_xlabel("ϖ, the training time of a sample")
    return figure


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


def _varpi_caption(varpi: FloatArray, y: IntArray, classes: tuple[str, ...]) -> str:
    values = np.asarray(varpi, dtype=np.float64)
    low, middle, high = (as_number(float(value)) for value in np.quantile(values, [0.05, 0.5, 0.95]))
    text = f"Nine in ten of the {values.size:,} samples train for a time between {low} and {high} (median {middle})"
    zeros = int(np.count_nonzero(values == 0))
    if zeros:
        text += f"; {zeros:,} are never trained on (ϖ = 0)"
    medians = {int(label): float(np.median(values[y == label])) for label in np.unique(y)}
    if len(medians) > 1:
        longest, shortest = (pick(medians, key=lambda label: medians[label]) for pick in (max, min))
        text += (
            f"; class {classes[longest]} gets the longest times (median {as_number(medians[longest])}), "
            f"class {classes[shortest]} the shortest ({as_number(medians[shortest])})"
        )
    return f"{text}."


def spectrum_plot(spectrum: KernelSpectrum, chosen_t: float) -> Plot:
    """Each leading eigenvalue with the bound of its error."""
    values, pairs = np.asarray(spectrum.eigenvalues), zip(spectrum.eigenvalues, spectrum.errors, strict=True)
    learned = int((values * chosen_t >= 1).sum())
    whole = f"{learned}" if learned < len(values) else f"all {learned} of these and perhaps more"
    return plot(
        lambda: spectrum_figure(spectrum, chosen_t),
        [{"number": i, "eigenvalue": float(v), "error": float(e)} for i, (v, e) in enumerate(pairs, start=1)],
        f"The {len(values)} largest eigenvalues of the {spectrum.n:,} x {spectrum.n:,} Gram matrix fall from "
        f"{as_number(float(values[0]))} to {as_number(float(values[-1]))}; a mode of eigenvalue λ is learned by the "
        f"time 1/λ: at the time that validation chose these are {whole}.",
        "The largest eigenvalues of the Gram matrix against their number.",
    )


def spectrum_figure(spectrum: KernelSpectrum, chosen_t: float) -> Figure:
    """Eigenvalues against their number on log axes; modes above 1/t are learned by the time t."""
    figure, axes = single_axes(2.7)
    values, number = np.asarray(spectrum.eigenvalues), np.arange(1, len(spectrum.eigenvalues) + 1)
    log_axis(axes.xaxis)
    log_axis(axes.yaxis)
    low = np.maximum(values - spectrum.errors, values / 10)
    axes.fill_between(number, low, values + spectrum.errors, color=ROBUST, alpha=0.2, linewidth=0)
    axes.plot(number, values, color=ROBUST, marker="o", markersize=2.5)
    axes.axhline(1 / chosen_t, color=INK, linewidth=1.0, linestyle=DOTTED)
    where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
    note(axes, f"1/t at the chosen t = {as_number(chosen_t)}", (1.0, 1 / chosen_t), (0, 2), INK, **where)
    axes.set_xlabel("number of the eigenvalue")
    axes.set_ylabel("eigenvalue of the Gram matrix")
    return figure
