"""Figures of reports that are not drawn: where they are not what is tested, a PNG of one pixel stands for each."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import pytest
from matplotlib.figure import Figure
from PIL import Image

from advntk_dist.report import dynamics, figures
from advntk_dist.report.style import Theme


@cache
def pixel(colour: str) -> bytes:
    """A PNG of one pixel."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), colour).save(buffer, "PNG")
    return buffer.getvalue()


def _pixel_of(figure: Callable[[Theme], Figure], theme: Theme) -> bytes:
    return pixel(theme.surface)


@contextmanager
def undrawn() -> Iterator[None]:
    """No figure is drawn: drawing those of one report takes as long as a small run."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (dynamics, figures):
            patch.setattr(module, "draw", _pixel_of)
        yield


@contextmanager
def drawn() -> Iterator[None]:
    """Figures are drawn after all, inside of :func:`undrawn`."""
    from advntk_dist.report.style import draw

    with pytest.MonkeyPatch.context() as patch:
        for module in (dynamics, figures):
            patch.setattr(module, "draw", draw)
        yield


@pytest.fixture(scope="module", autouse=True)
def figures_are_undrawn() -> Iterator[None]:
    """For the ``conftest.py`` of a folder whose tests are not of figures; session fixtures say so for themselves."""
    with undrawn():
        yield
