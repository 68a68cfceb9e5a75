"""Figures of reports that are not drawn: where they are not what is tested, a PNG of one pixel stands for each."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import pytest
from matplotlib.figure import Figure
from PIL import Image

from advntk_dist.report import dynamics, figures, style
from advntk_dist.report.style import Theme


@cache
def pixel(colour: str) -> bytes:
    """A PNG of one pixel."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), colour).save(buffer, "PNG")
    return buffer.getvalue()


def _pixels(figure: Callable[[Theme], Figure], *themes: Theme) -> list[bytes]:
    return [pixel(theme.surface) for theme in themes]


@contextmanager
def undrawn() -> Iterator[None]:
    """No figure is drawn: drawing those of one report takes as long as a small run."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (dynamics, figures):
            patch.setattr(module, "draw", _pixels)
        yield


@contextmanager
def drawn(*themes: Theme) -> Iterator[None]:
    """Figures are drawn after all, inside of :func:`undrawn`: in these themes, by default in all."""

    def some(figure: Callable[[Theme], Figure], *asked: Theme) -> list[bytes]:
        real = iter(style.draw(figure, *(theme for theme in asked if not themes or theme in themes)))
        return [next(real) if not themes or theme in themes else pixel(theme.surface) for theme in asked]

    with pytest.MonkeyPatch.context() as patch:
        for module in (dynamics, figures):
            patch.setattr(module, "draw", some)
        yield


@pytest.fixture(scope="module", autouse=True)
def figures_are_undrawn() -> Iterator[None]:
    """For the ``conftest.py`` of a folder whose tests are not of figures; session fixtures say so for themselves."""
    with undrawn():
        yield
