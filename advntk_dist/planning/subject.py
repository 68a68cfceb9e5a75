"""The images that a calibration works on: a few of the run's own, or a stand-in where they are not on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.config import RunConfig
from advntk_dist.data import split
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.errors import DatasetError
from advntk_dist.pipeline.images import load_images
from advntk_dist.planning.counts import Images

KNOWN = {
    "cifar10": Images((32, 32, 3), 10),
    "cifar100": Images((32, 32, 3), 100),
    "svhn": Images((32, 32, 3), 10),
    "mnist": Images((28, 28, 1), 10),
    "fashion-mnist": Images((28, 28, 1), 10),
}
"""Published datasets, whose shapes are known before they are fetched."""

VALIDATION = 512
"""Validation images of a calibration, at most."""


@dataclass(frozen=True, eq=False)
class Subject:
    """Training images x (m, H, W, C) with labels y, validation images, and whether they are a stand-in."""

    x: NDArray[Any]
    y: NDArray[np.int64]
    x_val: NDArray[Any]
    y_val: NDArray[np.int64]
    images: Images
    stand_in: bool


def subject_of(config: RunConfig, most: int) -> Subject:
    """The first ``most`` training images of a run and some of its validation images, in the dtype of its kernels.

    Raises
    ------
    DatasetError
        If the data are not there, and are of no published dataset whose shape is known.
    ConfigError
        If the dataset has fewer images than asked for.
    """
    d = config.data
    m, v = min(d.n_train, most), min(d.n_val, VALIDATION)
    try:
        dataset = load_images(config)
    except DatasetError:
        if d.path is not None or d.name not in KNOWN:
            raise
        classes = len(d.class_subset) if d.class_subset else KNOWN[d.name].classes
        height, width, channels = KNOWN[d.name].shape
        shape = (d.resize or height, d.resize or width, channels)
        x, y = stand_in(m + v, Images(shape, classes), d.seed)
        rows, val, known = np.arange(m), m + np.arange(v), Images(shape, classes)
    else:
        parts = split(dataset, n_train=d.n_train, n_val=d.n_val, n_test=d.n_test, seed=d.seed)
        x, y, rows, val = dataset.x, dataset.y, parts.train[:m], parts.val[:v]
        height, width, channels = dataset.image_shape
        known = Images((height, width, channels), dataset.n_classes)
        return Subject(_floats(x[rows], config), y[rows], _floats(x[val], config), y[val], known, False)
    return Subject(_floats(x[rows], config), y[rows], _floats(x[val], config), y[val], known, True)


def stand_in(n: int, images: Images, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, H, W, C) uint8 with the power spectrum of photographs, and labels (n,) that they only hint at."""
    rng = np.random.default_rng([seed, 5])
    height, width, channels = images.shape
    fy, fx = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    fall = 1.0 / np.maximum(np.hypot(fy, fx), 1.0 / max(height, width))

    def fields(count: int) -> NDArray[np.float64]:
        noise = np.fft.fft2(rng.standard_normal((count, height, width, channels)), axes=(1, 2))
        smooth = np.fft.ifft2(noise * fall[None, :, :, None], axes=(1, 2)).real
        return np.asarray(smooth / smooth.std())

    y = rng.integers(images.classes, size=n)
    x = fields(n) + 0.3 * fields(images.classes)[y]
    return np.clip(128 + 60 * x, 0, 255).astype(np.uint8), y.astype(np.int64)


def _floats(x: NDArray[np.uint8], config: RunConfig) -> NDArray[Any]:
    return to_unit_range(x).astype(config.gram.dtype)
