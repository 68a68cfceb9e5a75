"""The training images that Adv-NTK trains longest and shortest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advntk_dist.errors import RequestError
from advntk_dist.report.arrays import FloatArray, IntArray
from advntk_dist.report.scores import as_number
from advntk_dist.report.style import WIDTH, Theme, draw_image, new_figure, short

COUNT = 10
"""Images at either end."""
_COLUMNS = 5


@dataclass(frozen=True, eq=False)
class Extremes:
    """Images at both ends of the training times, the most extreme first.

    Attributes
    ----------
    longest, shortest : (m, H, W, C) float
        Images in [-0.5, 0.5].
    longest_times, shortest_times : (m,) float
        Their varpi.
    longest_labels, shortest_labels : (m,) int
        Their classes.
    """

    longest: FloatArray
    longest_times: FloatArray
    longest_labels: IntArray
    shortest: FloatArray
    shortest_times: FloatArray
    shortest_labels: IntArray

    def __post_init__(self) -> None:
        """Check shapes; raises :class:`~advntk_dist.errors.RequestError`."""
        for name in ("longest", "shortest"):
            images, times, labels = (np.shape(getattr(self, name + end)) for end in ("", "_times", "_labels"))
            if len(images) != 4 or times != images[:1] or labels != images[:1]:
                raise RequestError(
                    f"report: extremes.{name}: shapes {images}, {times} and {labels}; pass (m, H, W, C) images with "
                    "one time and one label each"
                )


def extremes_of(x: FloatArray, varpi: FloatArray, y: IntArray, count: int = COUNT) -> Extremes:
    """Pick the ends out of all training images (n, H, W, C); ties go to the earlier image."""
    order = np.argsort(np.asarray(varpi), kind="stable")
    low, high = order[:count], np.argsort(-np.asarray(varpi), kind="stable")[:count]
    return Extremes(x[high], varpi[high], y[high], x[low], varpi[low], y[low])


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
