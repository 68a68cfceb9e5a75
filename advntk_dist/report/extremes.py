"""The training images that Adv-NTK trains longest and shortest."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advntk_dist.report.parts import Extremes
from advntk_dist.report.scores import as_number
from advntk_dist.report.style import WIDTH, Theme, draw_image, new_figure, short

_COLUMNS = 5


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
        _side_label(panels[half * bands, 0], f"{name} varpi", theme)
        for index, (image, time, label) in enumerate(zip(images, times, labels, strict=True)):
            axes = panels[half * bands + index // columns, index % columns]
            draw_image(axes, np.asarray(image), "gray")
            words = f"{short(classes[int(label)], 12)}\n{as_number(float(time))}"
            axes.set_title(words, loc="center", fontsize=7, pad=2)
    return figure


def extremes_caption(extremes: Extremes) -> str:
    """Sentence under the images."""
    longest, shortest = float(np.max(extremes.longest_times)), float(np.min(extremes.shortest_times))
    return (
        f"The training images with the longest times (up to {as_number(longest)}) and the shortest (from "
        f"{as_number(shortest)}), class and varpi above each: what Adv-NTK learns most from, and what it all but "
        "leaves out."
    )


def _side_label(axes: Axes, label: str, theme: Theme) -> None:
    axes.annotate(
        label, (0.0, 0.5), xycoords="axes fraction", xytext=(-4, 0), textcoords="offset points",
        rotation=90, ha="right", va="center", fontsize=7, color=theme.muted,
    )  # fmt: skip
