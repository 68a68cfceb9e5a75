"""Progress of long work: bars with rate and time left on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

Advance = Callable[[int, bool], None]
"""Called with the units that are done, and whether they were done now (True) or are found done (False)."""

_LINE_EVERY = 10.0
"""Seconds between plain log lines."""


def rate_text(speed: float, unit: str) -> str:
    """Units a second, to three digits and without an exponent."""
    return f"{speed:,.0f} {unit}/s" if speed >= 100 else f"{speed:.3g} {unit}/s"


class _Rate(ProgressColumn):
    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        """Units a second."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else rate_text(speed, task.fields["unit"]))


class Display:
    """Shows stages of work on a console.

    Parameters
    ----------
    console
        Where to show; bars are drawn only if it is a terminal.
    quiet
        Show nothing but warnings.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self._ended: set[str] = set()

    def say(self, text: str) -> None:
        """One line for the reader."""
        if not self.quiet:
            self.console.print(text, markup=False)

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """Show one stage; the caller advances it by the units that are done.

        A stage that has ended on this display before is shown again only if something of it is done anew.
        """
        if self.quiet:
            yield lambda units, fresh: None
            return
        show = self._bar if self.console.is_terminal else self._lines
        with ExitStack() as stack:
            begin = partial(stack.enter_context, show(name, total, unit))
            shown = None if name in self._ended else begin()
            held = 0

            def advance(units: int, fresh: bool) -> None:
                nonlocal shown, held
                if shown is None and not fresh:
                    held += units
                    return
                if shown is None:
                    shown = begin()
                    shown(held, False)
                shown(units, fresh)

            yield advance
        self._ended.add(name)

    @contextmanager
    def _bar(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=False) as progress:
            task = progress.add_task(name, total=total, unit=unit)

            def advance(units: int, fresh: bool) -> None:
                if fresh:
                    progress.update(task, advance=units)
                else:  # found done: moves the bar, but says nothing of the speed
                    progress.update(task, completed=progress.tasks[task].completed + units)
                    progress.reset(task, completed=int(progress.tasks[task].completed), total=total)

            yield advance

    @contextmanager
    def _lines(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        last = time.monotonic()
        done = 0
        start: tuple[float, int] | None = None  # the first unit waits for workers: the pace is that of the others

        def advance(units: int, fresh: bool) -> None:
            nonlocal last, done, start
            now = time.monotonic()
            done += units
            if fresh and start is None:
                start = now, done
            if done < total and now - last < _LINE_EVERY:
                return
            last = now
            text = f"{name}: {done}/{total} {unit}"
            if start is None:
                text += " found done"
            elif done > start[1]:
                rate = (done - start[1]) / max(now - start[0], 1e-9)
                text += f", {rate_text(rate, unit)}" + (f", {(total - done) / rate:.0f} s left" if done < total else "")
            self.say(text)

        yield advance


class LateStage:
    """A stage that is shown only once it is known to have work, and how much."""

    def __init__(self, display: Display, name: str, unit: str) -> None:
        self._display, self._name, self._unit = display, name, unit
        self._stage = ExitStack()
        self._advance: Advance | None = None
        self._done = 0

    def __enter__(self) -> LateStage:
        return self

    def reach(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units are done; what was done at the first call is not work of today."""
        fresh = self._advance is not None
        if self._advance is None:
            self._advance = self._stage.enter_context(self._display.stage(self._name, total, self._unit))
        self._advance(done - self._done, fresh)
        self._done = done

    def __exit__(self, *error: object) -> None:
        self._stage.close()
