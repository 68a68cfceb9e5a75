"""A configuration brought to life: images, targets, network, attack."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.config import RunConfig
from advntk_dist.data import Dataset, one_hot, split
from advntk_dist.data.duplicates import Duplicates, find_duplicates, refuse_duplicates
from advntk_dist.networks import Network, network
from advntk_dist.pipeline.directory import load_images
from advntk_dist.predictor import KernelPredictor

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
        return network(**self.config.network.model_dump(), classes=self.dataset.n_classes)

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
