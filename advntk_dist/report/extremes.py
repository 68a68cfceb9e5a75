"""The training images that Adv-NTK trains longest and shortest."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advntk_dist.report.arrays import FloatArray
from advntk_dist.report.parts import Extremes
from advntk_dist.report.scores import as_number
from advntk_dist.report.style import WIDTH, Theme, draw_image, new_figure, short

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
