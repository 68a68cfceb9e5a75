"""The look of the plots in both themes, and figures turned into PNG bytes that depend on their content alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

WIDTH = 5.0  # inches: at 9 points, text stays readable when the page is as narrow as a phone
DPI = 288


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
        "font.family": "DejaVu Sans",
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


def new_figure(height: float) -> Figure:
    """Make an empty figure of the standard width and ``height`` inches on an Agg canvas of its own."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """Render to PNG without the metadata (library version) that would change bytes for no change of content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()


def percent_axis(axes: Axes) -> None:
    """Label the vertical axis in per cent; the data are fractions."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100.0 * value:.0f}%"))


def title(axes: Axes, text: str) -> Text:
    """Put a short title at the left above the axes."""
    return axes.set_title(text, loc="left", pad=6)


def short(name: str, length: int) -> str:
    """A name on one line of at most ``length`` characters, for where a plot has little room."""
    line = " ".join(name.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
