"""Names from files that nobody has checked, made fit to print."""

from __future__ import annotations

import unicodedata

_UNPRINTED = frozenset(("Cc", "Cs", "Zl", "Zp"))
"""Categories of characters that command a terminal, cannot be encoded, or end a line."""
_TURNING = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))
"""Classes of characters that turn the direction of the text after them."""


def printable(text: str) -> str:
    r"""A text in which control characters are escaped, as ``\x1b``: no terminal or page obeys it, each shows it.

    Letters of all scripts stay as they are. Undecodable bytes of file names, line ends and characters that turn the
    direction of the text are escaped too.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(c) if _commands(c) else c for c in text)


def _commands(character: str) -> bool:
    return unicodedata.category(character) in _UNPRINTED or unicodedata.bidirectional(character) in _TURNING


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
