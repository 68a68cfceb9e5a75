"""Plots of methods, training times, images and the spectrum of the kernel."""

from __future__ import annotations

import math
import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from advntk_dist.report.inputs import Examples, Extremes, FloatArray, IntArray, KernelSpectrum
from advntk_dist.report.scores import MethodScore, as_number, as_percent
from advntk_dist.report.style import (
    WIDTH,
    Theme,
    draw_image,
    headroom,
    log_axis,
    new_figure,
    percent_axis,
    ratio_axis,
    short,
    title,
)

COLUMNS = 6  # images side by side: on a phone each is still a fingertip wide
SHOWN = 12
_CLASSES = 20  # more boxes than this cannot be told apart
_FAR = 4.0  # times that differ by more than this factor want a log axis


def methods_figure(scores: tuple[MethodScore, ...], theme: Theme) -> Figure:
    """Clean and robust accuracy of each method side by side, with the recorded 95% intervals."""
    figure = new_figure(3.1)
    axes = figure.add_subplot()
    centres = np.arange(len(scores), dtype=np.float64)
    bars = (
        ("clean", -0.2, theme.clean, [(s.clean, s.clean_interval) for s in scores]),
        ("robust", 0.2, theme.robust, [(s.robust, s.robust_interval) for s in scores]),
    )
    for label, offset, colour, values in bars:
        heights = [value for value, _ in values]
        axes.bar(centres + offset, heights, width=0.36, color=colour, label=label)
        for x, (value, interval) in zip(centres + offset, values, strict=True):
            low, high = interval or (value, value)
            if interval is not None:
                axes.plot([x, x], [low, high], color=theme.ink, linewidth=1.3, solid_capstyle="butt")
            axes.annotate(
                as_percent(value),
                (x, high),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8,
            )
    axes.set_xticks(centres, [textwrap.fill(short(score.title, 28), 14) for score in scores])
    axes.tick_params(axis="x", length=0, labelsize=9, labelcolor=theme.ink)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0.0, headroom(max(max(score.clean, score.robust) for score in scores)))
    percent_axis(axes)
    axes.set_ylabel("test accuracy")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.0, columnspacing=1.4)
    return figure


def varpi_figure(varpi: FloatArray, y: IntArray | None, classes: tuple[str, ...], theme: Theme) -> Figure:
    """Histogram of varpi over all samples and, under it on the same axis, a box for each class.

    The axis is logarithmic where all times are positive and differ much, as those of a recipe that trains log varpi do.
    """
    groups = [] if y is None else _by_class(np.asarray(varpi), np.asarray(y), classes)
    height = 2.2 if not groups else 2.2 + 0.5 + 0.2 * len(groups)
    figure = new_figure(height)
    panels: list[Axes]
    if groups:
        ratios = [1.6, 0.5 + 0.2 * len(groups)]
        panels = list(figure.subplots(2, 1, sharex=True, height_ratios=ratios))
    else:
        panels = [figure.add_subplot()]
    values = np.asarray(varpi, dtype=np.float64)
    low, top = float(values.min()), float(values.max()) or 1.0
    logarithmic = low > 0 and top > _FAR * low
    bins = np.geomspace(low / 1.02, 1.02 * top, 41) if logarithmic else np.linspace(0.0, 1.02 * top, 41)
    panels[0].hist(values, bins=bins.tolist(), color=theme.robust)
    panels[0].axvline(float(np.median(values)), color=theme.ink, linewidth=1.0, linestyle=(0, (1, 2)))
    panels[0].yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    panels[0].set_ylabel("samples")
    title(panels[0], "all samples (dotted: median)")
    if groups:
        _class_boxes(panels[1], groups, len(groups) == np.unique(np.asarray(y)).size, theme)
    if logarithmic:
        panels[-1].set_xscale("log")
        (ratio_axis if top < 1000 * low else log_axis)(panels[-1].xaxis)
    panels[-1].set_xlim(float(bins[0]), float(bins[-1]))
    panels[-1].set_xlabel("ϖ, the training time of a sample")
    return figure


def _class_boxes(axes: Axes, groups: list[tuple[str, FloatArray]], complete: bool, theme: Theme) -> None:
    line = {"color": theme.muted, "linewidth": 1.0}
    axes.boxplot(
        [group for _, group in groups],
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        widths=0.55,
        patch_artist=True,
        boxprops={"facecolor": theme.robust, "alpha": 0.45, "linewidth": 0},
        medianprops={"color": theme.ink, "linewidth": 1.6},
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


def difference_scale(examples: Examples) -> float:
    """Factor that brings the largest difference of the shown images to the end of the scale; 1 if all are 0."""
    shown = slice(0, SHOWN)
    largest = float(np.max(np.abs(examples.adversarial[shown] - examples.clean[shown]), initial=0.0))
    return 0.5 / largest if largest > 0 else 1.0


def examples_figure(examples: Examples, classes: tuple[str, ...], theme: Theme) -> Figure:
    """Images in columns under their class: clean, adversarial twin, difference; at most 12, six to a band."""
    count = min(len(examples.labels), SHOWN)
    bands = -(-count // COLUMNS)
    columns = -(-count // bands)
    figure = new_figure(bands * (3 * WIDTH / max(columns, 4) + 0.72), pad=0.02)
    panels = figure.subplots(3 * bands, columns, squeeze=False)
    scale = difference_scale(examples)
    signed = LinearSegmentedColormap.from_list("signed", [theme.clean, theme.surface, theme.robust])
    length = 10 if columns > 4 else 16
    guesses = np.concatenate([examples.predicted_clean[:count], examples.predicted_adversarial[:count]])
    size = 7 if columns > 4 and max(len(classes[guess]) for guess in guesses) > 7 else 8
    for panel in panels.flat:
        panel.axis("off")
    for row, axes in enumerate(panels[:, 0]):
        _row_label(axes, ("clean", "adversarial", f"difference ×{scale:.3g}")[row % 3], theme)
    for index in range(count):
        band, column = divmod(index, columns)
        top, middle, bottom = panels[3 * band : 3 * band + 3, column]
        clean, twin = np.asarray(examples.clean[index]), np.asarray(examples.adversarial[index])
        truth, before, after = (
            int(labels[index]) for labels in (examples.labels, examples.predicted_clean, examples.predicted_adversarial)
        )
        draw_image(top, clean, "gray")
        draw_image(middle, twin, "gray")
        _truth(top, short(classes[truth], length), size, theme)
        draw_image(bottom, np.clip(scale * (twin - clean), -0.5, 0.5), signed)
        for axes, guess in ((top, before), (middle, after)):
            right = guess == truth
            axes.set_title(
                short(classes[guess], length) if right else f"{short(classes[guess], length)} ✗",
                loc="center",
                fontsize=size,
                pad=2,
                color=theme.ink if right else theme.robust,
            )
    return figure


def _truth(axes: Axes, label: str, size: int, theme: Theme) -> None:
    """The true class over the answer, which is the title."""
    axes.annotate(
        label, (0.5, 1.0), xycoords="axes fraction", xytext=(0, size + 5), textcoords="offset points",
        ha="center", va="bottom", fontsize=size, fontweight="bold", color=theme.muted,
    )  # fmt: skip


def _row_label(axes: Axes, label: str, theme: Theme) -> None:
    axes.annotate(
        label,
        (0.0, 0.5),
        xycoords="axes fraction",
        xytext=(-4, 0),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="center",
        fontsize=7,
        color=theme.muted,
    )


_COLUMNS = 5
_LEFT_OUT = 0.01  # of the median time


def extremes_figure(extremes: Extremes, classes: tuple[str, ...], theme: Theme) -> Figure:
    """Two bands of images, longest and shortest times, with class and time above each."""
    groups = (
        ("longest", extremes.longest, extremes.longest_times, extremes.longest_labels),
        ("shortest", extremes.shortest, extremes.shortest_times, extremes.shortest_labels),
    )
    count = max(len(images) for _, images, _, _ in groups)
    columns = min(_COLUMNS, count)
    bands = -(-count // columns)
    figure = new_figure(2 * bands * (WIDTH / max(columns, 3) + 0.28) + 0.3, pad=0.02)
    panels = figure.subplots(2 * bands, columns, squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    for half, (name, images, times, labels) in enumerate(groups):
        _side_label(panels[half * bands, 0], f"{name} ϖ", theme)
        for index, (image, time, label) in enumerate(zip(images, times, labels, strict=True)):
            axes = panels[half * bands + index // columns, index % columns]
            draw_image(axes, np.asarray(image), "gray")
            words = f"{short(classes[int(label)], 12)}\n{as_number(float(time))}"
            axes.set_title(words, loc="center", fontsize=7, pad=2)
    return figure


def extremes_caption(extremes: Extremes, varpi: FloatArray | None = None) -> str:
    """Sentence under the images; ``varpi`` are the times of all training images."""
    longest, shortest = float(np.max(extremes.longest_times)), float(np.min(extremes.shortest_times))
    median = 0.0 if varpi is None else float(np.median(varpi))
    ends = (f"up to {as_number(longest)}", f"from {as_number(shortest)}")
    if median > 0:
        ends = (f"{ends[0]}, {_times(longest / median)}", f"{ends[1]}, {_times(shortest / median)}")
    text = (
        f"The training images with the longest times ({ends[0]}) and the shortest ({ends[1]}), class and ϖ above each"
    )
    if float(np.max(extremes.shortest_times)) < _LEFT_OUT * median:
        text += ": the shortest are all but left out"
    return f"{text}."


def _times(ratio: float) -> str:
    return f"{as_number(ratio)} times the median of all"


def _side_label(axes: Axes, label: str, theme: Theme) -> None:
    axes.annotate(
        label, (0.0, 0.5), xycoords="axes fraction", xytext=(-4, 0), textcoords="offset points",
        rotation=90, ha="right", va="center", fontsize=7, color=theme.muted,
    )  # fmt: skip


def spectrum_figure(spectrum: KernelSpectrum, chosen_t: float | None, theme: Theme) -> Figure:
    """Eigenvalues against their number on log axes; modes above 1/t are learned by the time t."""
    figure = new_figure(2.7)
    axes = figure.add_subplot()
    values, number = np.asarray(spectrum.eigenvalues), np.arange(1, len(spectrum.eigenvalues) + 1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    low = np.maximum(values - spectrum.errors, values / 10)
    axes.fill_between(number, low, values + spectrum.errors, color=theme.robust, alpha=0.2, linewidth=0)
    axes.plot(number, values, color=theme.robust, marker="o", markersize=2.5)
    if chosen_t is not None and math.isfinite(chosen_t) and chosen_t > 0:
        axes.axhline(1 / chosen_t, color=theme.ink, linewidth=1.0, linestyle=(0, (1, 2)))
        axes.annotate(
            f"1/t at the chosen t = {as_number(chosen_t)}", (1.0, 1 / chosen_t), xycoords=("axes fraction", "data"),
            xytext=(0, 2), textcoords="offset points", ha="right", va="bottom", fontsize=8, color=theme.ink,
        )  # fmt: skip
    log_axis(axes.xaxis)
    log_axis(axes.yaxis)
    axes.set_xlabel("number of the eigenvalue")
    axes.set_ylabel("eigenvalue of the Gram matrix")
    return figure


def spectrum_caption(spectrum: KernelSpectrum, chosen_t: float | None) -> str:
    """Sentence under the spectrum."""
    values = np.asarray(spectrum.eigenvalues)
    text = (
        f"The {len(values)} largest eigenvalues of the {spectrum.n:,} x {spectrum.n:,} Gram matrix fall from "
        f"{as_number(float(values[0]))} to {as_number(float(values[-1]))}; a mode of eigenvalue λ "
        "is learned by the time 1/λ"
    )
    if chosen_t is not None and math.isfinite(chosen_t) and chosen_t > 0:
        learned = int((values * chosen_t >= 1).sum())
        whole = f"{learned}" if learned < len(values) else f"all {learned} of these and perhaps more"
        text += f": at the time that validation chose these are {whole}"
    return f"{text}."
