"""Figures of reports that are not drawn: where they are not what is tested, an empty SVG stands for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from matplotlib.figure import Figure

from advntk_dist.report import style

_DRAW = style.draw


def _empty(_: Callable[[], Figure], alt: str) -> str:
    return f"<svg><title>{alt}</title></svg>"


@contextmanager
def _drawing(draw: Callable[[Callable[[], Figure], str], str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "draw", draw)
        yield


def undrawn() -> AbstractContextManager[None]:
    """No figure is drawn: drawing those of one report takes longer than many a test."""
    return _drawing(_empty)


def drawn() -> AbstractContextManager[None]:
    """Figures are drawn after all, inside of :func:`undrawn`."""
    return _drawing(_DRAW)


@pytest.fixture(scope="module", autouse=True)
def figures_are_undrawn() -> Iterator[None]:
    """For the ``conftest.py`` of a folder whose tests are not of figures; session fixtures say so for themselves."""
    with undrawn():
        yield
