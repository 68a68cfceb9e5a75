"""The look of the plots, and figures turned into SVG: one file for a light and a dark page, its data beside it."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from advntk_dist.text import csv_text

WIDTH = 4.5  # inches: at 8 and 9 points, text stays readable when the page is as narrow as a phone
FONT = "DejaVu Sans"  # matplotlib brings it along, so plots are laid out the same everywhere

SURFACE, INK, MUTED, LINE, CLEAN, ROBUST = "#ffffff", "#1b1e23", "#59616d", "#e3e5e9", "#6b7480", "#b8430f"
"""Colours of a light page, those of its style sheet: ground, text, axes, grid, clean and robust accuracy."""

KINDS = (("clean", CLEAN, "s"), ("robust", ROBUST, "o"))
"""Accuracies, their colours and markers."""

DASHED, DOTTED = (0, (4, 3)), (0, (1, 2))
"""Styles of lines."""

DARK = {
    SURFACE: "#1b1e24",
    INK: "#e9ebee",
    MUTED: "#a6aebb",
    LINE: "#333842",
    CLEAN: "#8f99a8",
    ROBUST: "#ff9a5c",
}
"""What each becomes on a dark page."""

_STYLE = (
    f'text {{ font-family: "{FONT}", Verdana, sans-serif !important }}\n'
    "@media (prefers-color-scheme: dark) {\n"
    + "".join(
        f'[style*="{kind}: {light}"] {{ {kind}: {dark} !important }}\n'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    + "}"
)
"""Style sheet inside each SVG. A program that knows no style sheets shows the light colours."""

_SETTINGS: dict[str, Any] = {
    "font.family": FONT,
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,  # class names are text, a dollar sign in one is no formula
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": SURFACE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.7,
    "figure.facecolor": SURFACE,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "image.composite_image": False,
    "image.interpolation": "none",  # an SVG then holds the pixels as they are, and the browser enlarges them
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
}

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Plot:
    """A plot as an SVG element, the data that it shows as CSV, and its caption."""

    svg: str
    csv: str
    caption: str


def plot(figure: Callable[[], Figure], rows: Sequence[Mapping[str, Any]], caption: str, alt: str) -> Plot:
    """Draw a figure of these rows; ``alt`` is what a screen reader says of it."""
    return Plot(draw(figure, alt), csv_text(rows), caption)


def draw(figure: Callable[[], Figure], alt: str) -> str:
    """A figure as an SVG element, which is a whole file and a part of a page alike; the same figure, the same text.

    Matplotlib's own defaults and the look above hold, whatever the user's matplotlibrc says.
    """
    # Of groups no identifier is used, and of the others the salt keeps those of several figures apart on one page.
    with style.context(["default", _SETTINGS, {"svg.hashsalt": alt}]):
        text = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        FigureCanvasSVG(figure()).print_svg(text, metadata=nothing)
    drawn = text.getvalue()
    head, _, body = drawn[drawn.index("<svg") :].partition(">\n")
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    return f'{head} role="img">\n <title>{escape(alt)}</title>\n <style>\n{_STYLE}\n </style>\n{body}'


def new_figure(height: float) -> Figure:
    """Make an empty figure of the standard width and ``height`` inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.02, hspace=0.02)
    return Figure(figsize=(WIDTH, height), layout=layout)


def single_axes(height: float) -> tuple[Figure, Axes]:
    """A figure as of :func:`new_figure` with one pair of axes."""
    figure = new_figure(height)
    return figure, figure.add_subplot()


def accuracy_lines(axes: Axes, rows: Sequence[Mapping[str, Any]], over: str, label: str = "{}") -> None:
    """Draw clean and robust accuracy with their 95% bands over a column of rows.

    Parameters
    ----------
    axes
        Where to draw.
    rows
        Finite values of ``over``, and for ``clean`` and ``robust`` each the accuracy, ``_low`` and ``_high``.
    over
        The key of the horizontal axis.
    label
        What the legend calls a line, with ``{}`` for its kind.
    """
    at = [row[over] for row in rows]
    for kind, colour, marker in KINDS:
        low, high, value = ([row[f"{kind}{end}"] for row in rows] for end in ("_low", "_high", ""))
        axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(at, value, color=colour, marker=marker, markersize=3, label=label.format(kind))


def limit_lines(axes: Axes, row: Mapping[str, Any]) -> None:
    """Draw the accuracies of a row, those at t = infinity, as dashed lines across."""
    for kind, colour, _ in KINDS:
        axes.axhline(row[kind], color=colour, linestyle=DASHED, linewidth=1.2)


def percent_axis(axes: Axes) -> None:
    """Label the vertical axis in per cent; the data are fractions."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100.0 * value:.0f}%"))


def accuracy_axis(axes: Axes, highest: float, label: str = "test accuracy") -> None:
    """Let the vertical axis show accuracies from 0 to a little above the ``highest`` one."""
    axes.set_ylim(0.0, headroom(highest))
    percent_axis(axes)
    axes.set_ylabel(label)


def headroom(highest: float) -> float:
    """Top of an accuracy axis: a little over 100%, or the next tenths above when all values are low."""
    return 1.08 if highest > 0.8 else math.ceil(10 * highest + 1) / 10


def power_of_ten(value: float, _: object = None) -> str:
    """Label of a decade on a log axis in plain characters, since formulas are switched off."""
    exponent = math.log10(value) if value > 0 else math.nan
    if not math.isfinite(exponent) or abs(exponent - round(exponent)) > 1e-9:
        return ""
    return "10" + str(round(exponent)).translate(_SUPERSCRIPTS)


def log_axis(axis: Axis) -> None:
    """Make an axis logarithmic, and label its decades, at most seven of them."""
    _make_logarithmic(axis)
    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_major_formatter(FuncFormatter(power_of_ten))
    axis.set_minor_formatter(NullFormatter())


def ratio_axis(axis: Axis) -> None:
    """Make an axis of few decades logarithmic, and label 1, 2 and 5 of each as plain numbers."""
    _make_logarithmic(axis)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _make_logarithmic(axis: Axis) -> None:
    (axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale)("log")


def title(axes: Axes, text: str) -> Text:
    """Put a short title at the left above the axes."""
    return axes.set_title(text, loc="left", pad=6)


def note(axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float], colour: str, **more: Any) -> None:
    """Write small text ``shift`` points beside a point of the plot; ``more`` are options of Matplotlib's annotate."""
    axes.annotate(text, at, xytext=shift, textcoords="offset points", color=colour, **{"fontsize": 8.0} | more)


def accuracy_legend(figure: Figure, columns: int = 2) -> None:
    """Name the lines above the plot."""
    figure.legend(loc="outside upper left", ncols=columns, handlelength=1.8, columnspacing=1.4)


def short(name: str, length: int) -> str:
    """A name on one line of at most ``length`` characters; those that the plots' font lacks become □."""
    font = get_font(findfont(FONT))
    line = "".join(mark if font.get_char_index(ord(mark)) else "□" for mark in " ".join(name.split()))
    return line if len(line) <= length else f"{line[: length - 1]}…"
