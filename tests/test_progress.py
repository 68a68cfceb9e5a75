from __future__ import annotations

import io

import pytest
from rich.console import Console

from advntk_dist.progress import Display, rate_text


def shown(*, terminal: bool, quiet: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, highlight=False)
    display = Display(console, quiet=quiet)
    with display.stage("Gram matrix", 10, "tiles") as advance:
        advance(4, False)
        for _ in range(6):
            advance(1, True)
    display.say("done [with] it")
    return out.getvalue()


def test_a_terminal_gets_a_bar_with_count() -> None:
    text = shown(terminal=True)
    assert "Gram matrix" in text
    assert "10/10" in text
    assert "━" in text


def test_a_pipe_gets_plain_lines_with_rate() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[-1] == "done [with] it"
    assert lines[-2].startswith("Gram matrix: 10/10 tiles, ")
    assert lines[-2].endswith(" tiles/s")
    assert "\x1b" not in "".join(lines)


def test_work_found_done_has_no_rate() -> None:
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=False, width=100))
    with display.stage("Gram matrix", 10, "tiles") as advance:
        advance(10, False)
    assert out.getvalue() == "Gram matrix: 10/10 tiles found done\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_has_just_ended_is_not_shown_again_unless_it_is_done_anew(terminal: bool) -> None:
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=terminal, width=100))

    def stage(*steps: tuple[int, bool]) -> str:
        before = len(out.getvalue())
        with display.stage("Early stopping", 10, "images") as advance:
            for units, fresh in steps:
                advance(units, fresh)
        return out.getvalue()[before:]

    assert "10/10" in stage((10, True))
    assert stage((4, False), (6, False)) == ""
    assert "10/10" in stage((4, False), (6, True))


def test_rates_have_no_exponents() -> None:
    assert [rate_text(r, "images") for r in (0.01234, 3.456, 1060.2)] == [
        "0.0123 images/s", "3.46 images/s", "1,060 images/s"
    ]  # fmt: skip


def test_quiet_says_nothing() -> None:
    assert shown(terminal=False, quiet=True) == ""
