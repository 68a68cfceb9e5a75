"""What a run works on: its data and network, where it writes and shows what happens, what it has open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from advntk_dist.config import RunConfig
from advntk_dist.data import Dataset, one_hot, split
from advntk_dist.data.duplicates import Duplicates, find_duplicates, refuse_duplicates
from advntk_dist.networks import Network, network
from advntk_dist.pipeline.directory import RunDirectory, digest, load_images, require_same_images
from advntk_dist.pipeline.events import EventLog
from advntk_dist.predictor import KernelPredictor
from advntk_dist.progress import Display

Images = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Part:
    """Images (m, H, W, C) uint8 and their labels (m,)."""

    raw: NDArray[np.uint8]
    y: NDArray[np.int64]
    dtype: str

    @cached_property
    def x(self) -> Images:
        """The images as floats in [-0.5, 0.5]; made when first asked for, as they take four times the memory."""
        x = self.raw.astype(self.dtype)
        x /= 255
        x -= 0.5
        return x

    def first(self, m: int) -> Part:
        """The first m images."""
        return Part(self.raw[:m], self.y[:m], self.dtype)


class Problem:
    """The data and the network of one run; raises what the parts raise."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        d = config.data
        self.dataset: Dataset = load_images(config)
        self._split = split(self.dataset, n_train=d.n_train, n_val=d.n_val, n_test=d.n_test, seed=d.seed)
        if d.duplicates == "refuse":
            refuse_duplicates(self.duplicates, self.dataset.name)

    @cached_property
    def duplicates(self) -> Duplicates:
        """Equal images among those that the run takes, within and across its parts."""
        return find_duplicates(self.dataset, self.rows)

    @property
    def rows(self) -> dict[str, NDArray[np.int64]]:
        """Rows of the dataset by part: training, validation and test images."""
        return {"train": self._split.train, "val": self._split.val, "test": self._split.test}

    @cached_property
    def net(self) -> Network:
        """The network."""
        n = self.config.network
        return network(
            n.name,
            W_std=n.W_std,
            b_std=n.b_std,
            activation=n.activation,
            backend=n.backend,
            classes=self.dataset.n_classes,
        )

    @cached_property
    def train(self) -> Part:
        """Training images, in the order of the Gram matrix."""
        return self._part(self._split.train)

    @cached_property
    def val(self) -> Part:
        """Validation images."""
        return self._part(self._split.val)

    @cached_property
    def test(self) -> Part:
        """Test images."""
        return self._part(self._split.test)

    @property
    def targets(self) -> NDArray[np.float64]:
        """One-hot training targets (n, k)."""
        return np.asarray(one_hot(self.train.y, self.dataset.n_classes))

    @cached_property
    def predictor(self) -> KernelPredictor:
        """A predictor on the training images, with all coefficients 0."""
        zeros = np.zeros((len(self.train.x), self.dataset.n_classes))
        return KernelPredictor(self.net, self.train.x, zeros, batch=self.config.evaluation.batch)

    def _part(self, rows: NDArray[np.int64]) -> Part:
        return Part(self.dataset.x[rows], self.dataset.y[rows], self.config.gram.dtype)


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
