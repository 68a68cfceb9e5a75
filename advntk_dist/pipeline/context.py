"""What a run works on, where it writes and shows what happens, and everything that it has open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from advntk_dist.config import RunConfig
from advntk_dist.pipeline.directory import RunDirectory, digest, require_same_images
from advntk_dist.pipeline.events import EventLog
from advntk_dist.pipeline.problem import Problem
from advntk_dist.progress import Display


class RunContext:
    """One run in its directory; a context manager that closes what was opened under it, the last first.

    Parameters
    ----------
    problem
        Data and network of the run.
    folder
        The claimed run directory.
    display
        Where to show what happens.
    address
        Ray cluster, None for this machine.
    config
        Configuration of the run, by default that of the problem; another one has the same data and network.

    Attributes
    ----------
    events
        The log of the run directory.
    identity
        What every table of the run is committed under: digest of the configuration, fingerprint of the data.

    Raises
    ------
    ImagesChangedError
        If the directory has results of other images.
    """

    def __init__(
        self,
        problem: Problem,
        folder: RunDirectory,
        display: Display,
        *,
        address: str | None = None,
        config: RunConfig | None = None,
    ) -> None:
        require_same_images(folder, problem.dataset)
        self.problem, self.folder, self.display, self.address = problem, folder, display, address
        self.config = problem.config if config is None else config
        self.events = EventLog(folder.events)
        self.identity = {"configuration": digest(self.config), "data": problem.dataset.fingerprint}
        self._open = ExitStack()
        self._said: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def close_at_end(self, close: Callable[[], object]) -> None:
        """Have a function called when the context ends, before all that were given earlier."""
        self._open.callback(close)

    def say_once(self, text: str) -> None:
        """Show one line, at the first call with this text alone."""
        if text not in self._said:
            self._said.add(text)
            self.display.say(text)

    @property
    def scratch(self) -> Path | None:
        """Folder for what is needed for a while; None beside a run at a URL: the system's temporary folder."""
        return self.folder.root / "scratch" if isinstance(self.folder.root, Path) else None

    def description(self) -> dict[str, Any]:
        """What a run is, as its JSON files have it: data, network, numbers of images."""
        sizes = self.config.data.model_dump(include={"n_train", "n_val", "n_test"})
        return {**self.identity, "dataset": self.problem.dataset.name, "network": self.config.network.name} | sizes
