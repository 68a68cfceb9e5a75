"""The look of the plots in both themes, and figures turned into PNG bytes that depend on their content alone."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from advntk_dist.report.inputs import FloatArray

WIDTH = 4.5  # inches: at 8 and 9 points, text stays readable when the page is as narrow as a phone
DPI = 288
FONT = "DejaVu Sans"  # matplotlib brings it along, so plots look the same everywhere

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Theme:
    """Colours of one theme; ``surface`` and the rest match the page's style sheet."""

    name: str
    surface: str
    ink: str
    muted: str
    line: str
    clean: str
    robust: str


LIGHT = Theme("light", "#ffffff", "#1b1e23", "#59616d", "#e3e5e9", "#6b7480", "#b8430f")
DARK = Theme("dark", "#1b1e24", "#e9ebee", "#a6aebb", "#333842", "#8f99a8", "#ff9a5c")


@contextmanager
def drawing(theme: Theme) -> Iterator[None]:
    """Draw with matplotlib's own defaults and this theme, whatever the user's matplotlibrc says."""
    settings: dict[str, Any] = {
        "font.family": FONT,
        "font.size": 9.0,
        "text.color": theme.ink,
        "text.parse_math": False,  # class names are text, a dollar sign in one is no formula
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.facecolor": theme.surface,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9.0,
        "axes.titlelocation": "left",
        "axes.linewidth": 0.7,
        "figure.facecolor": theme.surface,
        "figure.dpi": DPI,
        "grid.color": theme.line,
        "grid.linewidth": 0.6,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.muted,
        "ytick.labelcolor": theme.muted,
        "xtick.labelsize": 8.0,
        "ytick.labelsize": 8.0,
        "legend.frameon": False,
        "legend.fontsize": 8.0,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
    }
    with style.context(["default", settings]):
        yield


def new_figure(height: float, pad: float = 0.04) -> Figure:
    """Make an empty figure of the standard width and ``height`` inches, ``pad`` inches round each panel."""
    layout = ConstrainedLayoutEngine(w_pad=pad, h_pad=pad, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """Render to PNG without the metadata (library version) that would change bytes for no change of content."""
    buffer = io.BytesIO()
    # savefig would lay the figure out in a drawing of its own before the one that counts.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def draw(figure: Callable[[Theme], Figure], *themes: Theme) -> list[bytes]:
    """The PNGs of a figure, one a theme; laid out once, which takes half of the time, as no colour moves anything."""
    made, pngs = list[Figure](), list[bytes]()
    for theme in themes:
        with drawing(theme):
            made.append(figure(theme))
            if len(made) > 1:
                made[-1].set_layout_engine("none")
                for axes, placed in zip(made[-1].axes, made[0].axes, strict=True):
                    axes.set_position(placed.get_position(original=True), which="original")
            pngs.append(png_bytes(made[-1]))
    return pngs


def percent_axis(axes: Axes) -> None:
    """Label the vertical axis in per cent; the data are fractions."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100.0 * value:.0f}%"))


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
    """Label the decades of a log axis, at most seven of them."""
    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_major_formatter(FuncFormatter(power_of_ten))
    axis.set_minor_formatter(NullFormatter())


def ratio_axis(axis: Axis) -> None:
    """Label 1, 2 and 5 of each decade of a log axis that has few decades, as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def title(axes: Axes, text: str) -> Text:
    """Put a short title at the left above the axes."""
    return axes.set_title(text, loc="left", pad=6)


def short(name: str, length: int) -> str:
    """A name on one line of at most ``length`` characters; those that the plots' font lacks become □."""
    font = get_font(findfont(FONT))
    line = "".join(mark if font.get_char_index(ord(mark)) else "□" for mark in " ".join(name.split()))
    return line if len(line) <= length else f"{line[: length - 1]}…"


def draw_image(axes: Axes, image: FloatArray, colours: str | Colormap) -> None:
    """One image in [-0.5, 0.5]: three channels in colour, any other number averaged and mapped to ``colours``."""
    options: dict[str, Any] = {"interpolation": "nearest"}
    if image.shape[-1] == 3:
        axes.imshow(np.clip(image + 0.5, 0.0, 1.0), **options)
    else:
        axes.imshow(image.mean(axis=-1), cmap=colours, vmin=-0.5, vmax=0.5, **options)
