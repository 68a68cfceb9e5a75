"""Plots of images: examples with their adversarial twins, and the ends of the training times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from advntk_dist.report.inputs import Examples, Extremes, FloatArray
from advntk_dist.report.judgements import title_of
from advntk_dist.report.style import INK, MUTED, ROBUST, WIDTH, Plot, note, plot, short
from advntk_dist.text import as_number

_DARKER, _BRIGHTER = to_rgb("#7d8694"), to_rgb("#dc6a36")
"""Colours of differences, between those of a light and of a dark page, as pixels do not follow a style sheet."""

_MARGIN = 0.24  # inches, for what names a row
_GAP = 0.06
_LINE = 0.13  # of text

_SIDE = {"rotation": 90, "rotation_mode": "anchor", "ha": "center", "va": "bottom", "fontsize": 7}
_ABOVE = {"ha": "center", "va": "bottom"}


class _Grid:
    """Images of one size in rows and columns on a figure, whose coordinates are inches from its upper left corner."""

    def __init__(self, columns: int, fewest: int, lines: Sequence[float]) -> None:
        """Make room.

        Parameters
        ----------
        columns
            Images side by side.
        fewest
            Columns that the width is for at least, so that few images do not grow large.
        lines
            For each row of images the lines of text above it.
        """
        self.edge = (WIDTH - _MARGIN) / max(columns, fewest) - _GAP
        self._tops = np.cumsum([self.edge + n * _LINE + _GAP for n in lines]) - self.edge
        height = float(self._tops[-1]) + self.edge + _GAP
        self.figure = Figure(figsize=(WIDTH, height))
        self.axes: Axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, WIDTH), ylim=(height, 0.0))
        self.axes.axis("off")

    def place(self, row: int, column: int) -> tuple[float, float]:
        """The upper left corner of an image."""
        return _MARGIN + column * (self.edge + _GAP), float(self._tops[row])

    def image(self, row: int, column: int, pixels: FloatArray, **options: Any) -> None:
        """Draw pixels as :meth:`matplotlib.axes.Axes.imshow` does."""
        x, y = self.place(row, column)
        self.axes.imshow(pixels, extent=(x, x + self.edge, y + self.edge, y), aspect="auto", **options)
        self.axes.set(xlim=(0.0, WIDTH), ylim=(self.figure.get_figheight(), 0.0))

    def text(self, row: int, column: int, text: str, size: float, colour: str, line: int = 0, **options: Any) -> None:
        """Write above an image, ``line`` lines further up."""
        x, y = self.place(row, column)
        at = (x + 0.5 * self.edge, y - line * _LINE)
        note(self.axes, text, at, (0, 2), colour, fontsize=size, **_ABOVE | options)

    def side(self, row: int, text: str) -> None:
        """Name a row at its left."""
        x, y = self.place(row, 0)
        note(self.axes, text, (x, y + 0.5 * self.edge), (-4, 0), MUTED, **_SIDE)


def _draw(grid: _Grid, row: int, column: int, image: FloatArray) -> None:
    """An image in [-0.5, 0.5]: three channels in colour, any other number averaged and in grey."""
    if image.shape[-1] == 3:
        grid.image(row, column, np.clip(image + 0.5, 0.0, 1.0))
    else:
        grid.image(row, column, image.mean(axis=-1), cmap="gray", vmin=-0.5, vmax=0.5)


def _draw_difference(grid: _Grid, row: int, column: int, difference: FloatArray) -> None:
    """A difference in [-0.5, 0.5]: of one channel the ground shines through where it is small."""
    if difference.shape[-1] == 3:
        _draw(grid, row, column, difference)
        return
    mean = difference.mean(axis=-1, keepdims=True)
    colours = np.where(mean > 0, _BRIGHTER, _DARKER)
    grid.image(row, column, np.concatenate([colours, np.abs(2 * mean)], axis=-1))


def examples_plot(examples: Examples, classes: tuple[str, ...]) -> Plot:
    """Test images with their twins: the class of each, the answers given, and the largest difference of a pixel."""
    named = {"class": examples.labels, "clean": examples.predicted_clean, "adversarial": examples.predicted_adversarial}
    return plot(
        lambda: examples_figure(examples, classes),
        [
            {"image": i}
            | {kind: classes[int(labels[i])] for kind, labels in named.items()}
            | {"largest_difference": float(np.abs(examples.adversarial[i] - examples.clean[i]).max())}
            for i in range(examples.shown)
        ],
        _examples_caption(examples),
        "Test images in columns: clean, adversarial twin, magnified difference.",
    )


_COLUMNS = 6  # images side by side: on a phone each is still a fingertip wide


def examples_figure(examples: Examples, classes: tuple[str, ...]) -> Figure:
    """Images in columns under their class: clean, adversarial twin, difference; at most 12, six to a band."""
    count = examples.shown
    bands = -(-count // _COLUMNS)
    columns = -(-count // bands)
    grid = _Grid(columns, 4, (2.5, 1, 0) * bands)
    length = 10 if columns > 4 else 16
    guesses = np.concatenate([examples.predicted_clean[:count], examples.predicted_adversarial[:count]])
    size = 7 if columns > 4 and max(len(classes[guess]) for guess in guesses) > 7 else 8
    for row in range(3 * bands):
        grid.side(row, ("clean", "adversarial", f"difference ×{examples.scale:.3g}")[row % 3])
    for index in range(count):
        band, column = divmod(index, columns)
        clean, twin = np.asarray(examples.clean[index]), np.asarray(examples.adversarial[index])
        truth, before, after = (
            int(labels[index]) for labels in (examples.labels, examples.predicted_clean, examples.predicted_adversarial)
        )
        _draw(grid, 3 * band, column, clean)
        _draw(grid, 3 * band + 1, column, twin)
        _draw_difference(grid, 3 * band + 2, column, np.clip(examples.scale * (twin - clean), -0.5, 0.5))
        grid.text(3 * band, column, short(classes[truth], length), size, MUTED, line=1, fontweight="bold")
        for row, guess in ((3 * band, before), (3 * band + 1, after)):
            right = guess == truth
            text = short(classes[guess], length) + ("" if right else " ✗")
            grid.text(row, column, text, size, INK if right else ROBUST)
    return grid.figure


def _examples_caption(examples: Examples) -> str:
    count = examples.shown
    right = np.asarray(examples.predicted_clean[:count]) == np.asarray(examples.labels[:count])
    fooled = int(np.count_nonzero(right & (examples.predicted_adversarial[:count] != examples.labels[:count])))
    grey = "" if examples.clean.shape[-1] == 3 else " (orange: brighter, grey: darker)"
    return (
        f"Test images, their twins attacked against {title_of(examples.method)}, and the difference magnified "
        f"{as_number(examples.scale)} times{grey}; on top the true class in bold, above "
        f"each image the answer given, ✗ where wrong: "
        f"the attack turns {fooled} of {int(np.count_nonzero(right))} right answers."
    )


def extremes_plot(extremes: Extremes, varpi: FloatArray, classes: tuple[str, ...]) -> Plot:
    """The end, the class and the time of each image; ``varpi`` are the times of all training images."""
    return plot(
        lambda: extremes_figure(extremes, classes),
        [
            {"end": name, "class": classes[int(label)], "varpi": float(time)}
            for name, end in extremes._asdict().items()
            for time, label in zip(end.times, end.labels, strict=True)
        ],
        extremes_caption(extremes, varpi),
        "Training images with the longest and the shortest effective training times.",
    )


def extremes_figure(extremes: Extremes, classes: tuple[str, ...]) -> Figure:
    """Two bands of images, longest and shortest times, with class and time above each."""
    count = len(extremes.longest.times)
    columns = min(5, count)
    bands = -(-count // columns)
    grid = _Grid(columns, 3, (2,) * 2 * bands)
    for half, (name, end) in enumerate(extremes._asdict().items()):
        grid.side(half * bands, f"{name} ϖ")
        for index, (image, time, label) in enumerate(zip(*end, strict=True)):
            row, column = half * bands + index // columns, index % columns
            _draw(grid, row, column, np.asarray(image))
            grid.text(row, column, short(classes[int(label)], 12), 7, INK, line=1)
            grid.text(row, column, as_number(float(time)), 7, INK)
    return grid.figure


_LEFT_OUT = 0.01  # of the median time


def extremes_caption(extremes: Extremes, varpi: FloatArray) -> str:
    """Sentence under the images; ``varpi`` are the times of all training images."""
    longest, shortest = float(np.max(extremes.longest.times)), float(np.min(extremes.shortest.times))
    median = float(np.median(varpi))
    ends = (f"up to {as_number(longest)}", f"from {as_number(shortest)}")
    if median > 0:
        ends = (f"{ends[0]}, {_times(longest / median)}", f"{ends[1]}, {_times(shortest / median)}")
    text = (
        f"The training images with the longest times ({ends[0]}) and the shortest ({ends[1]}), class and ϖ above each"
    )
    if float(np.max(extremes.shortest.times)) < _LEFT_OUT * median:
        text += ": the shortest are all but left out"
    return f"{text}."


def _times(ratio: float) -> str:
    return f"{as_number(ratio)} times the median of all"
