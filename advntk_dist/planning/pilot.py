"""Solves on a few of the images: passes, seconds and accuracies, from which those on all of them follow."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.config import RunConfig
from advntk_dist.data import one_hot, split
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.dynamics import ATDynamics
from advntk_dist.errors import DatasetError
from advntk_dist.operators import InMemoryOperator
from advntk_dist.pipeline.directory import load_images
from advntk_dist.planning.calibration import Pilot, Sample
from advntk_dist.planning.counts import Images

Array = NDArray[Any]

GROWTH = 0.4
"""varpi after s normalised steps of length lr is about s^0.4 lr / sqrt(n): 0.3 with digits, 0.45 with CIFAR-10."""


def varpi_after(config: RunConfig, step: int) -> float:
    """Typical effective time of a sample after some steps of training."""
    t, times = config.train, config.evaluation.times
    if t.recipe == "paper":
        return float(t.lr * max(1, step) ** GROWTH / np.sqrt(config.data.n_train))
    return float(np.sqrt(times[0] * times[-1]))  # it starts from one of the times, which selection will choose


def strength_grid(config: RunConfig) -> list[float]:
    """Strengths t n, a factor of ten apart, from below the first to above the last that a run solves for."""
    n = config.data.n_train
    wanted = [t * n for t in (config.evaluation.times[0], config.evaluation.times[-1])]
    wanted += [varpi_after(config, step) * n for step in (1, config.train.steps)]
    low, high = (np.log10(f(wanted)) for f in (min, max))
    return [float(10.0**p) for p in np.linspace(low, high, 2 + int(np.ceil(high - low)))]


def run_pilot(config: RunConfig, subject: PilotData, theta: Array, k_val: Array) -> Pilot:
    """Solve at all strengths, with all images and with half of them.

    Parameters
    ----------
    config
        Of the run.
    subject
        Images.
    theta
        Their Gram matrix (m, m).
    k_val
        Kernel (v, m) between validation and training images.
    """
    grid, m = strength_grid(config), len(theta)
    half, whole = (_sample(config, subject, theta, k_val, n, grid) for n in (max(2, m // 2), m))
    return Pilot(grid, half, whole, _step_ratio(config, subject, theta, k_val), subject.stand_in)


def _sample(
    config: RunConfig, subject: PilotData, theta: Array, k_val: Array, n: int, strengths: list[float]
) -> Sample:
    operator = InMemoryOperator(np.ascontiguousarray(theta[:n, :n]))
    y = one_hot(subject.y[:n], subject.images.classes)
    tol, to_val = config.solver.tolerance, k_val[:, :n]
    passes: list[float] = []
    seconds: list[float] = []
    right: list[float] = []

    def solve(t: float) -> tuple[float, float, float]:
        found = []
        for _ in range(2):
            # A new one each time: the last basis would serve again.
            dynamics = ATDynamics(operator, y, ridge=config.solver.ridge, max_passes=config.solver.max_passes)
            started = time.perf_counter()
            solution = dynamics.coefficients(1.0, t=t, tol=tol, throw=False)
            found.append(time.perf_counter() - started)
        hits = (to_val @ solution.value).argmax(axis=1) == subject.y_val
        return float(solution.passes), sum(found) / len(found), float(hits.mean())

    for s in strengths:
        for values, value in zip((passes, seconds, right), solve(s / n), strict=True):
            values.append(value)
    return Sample(n, passes, seconds, right, *solve(float("inf")))


def _step_ratio(config: RunConfig, subject: PilotData, theta: Array, k_val: Array) -> float:
    """Seconds of the solves and the gradient of a training step over those of one basis, in the middle of training."""
    n, y = len(theta), one_hot(subject.y, subject.images.classes)
    # The same strength as on all images.
    varpi = varpi_after(config, config.train.steps // 2) * config.data.n_train / n
    y_val = one_hot(subject.y_val, subject.images.classes)
    m = min(len(k_val), config.train.batch)
    alone, step = [], []
    operator = InMemoryOperator(theta)
    for _ in range(3):
        dynamics = ATDynamics(operator, y)
        started = time.perf_counter()
        dynamics.coefficients(varpi, tol=config.solver.tolerance, throw=False)
        alone.append(time.perf_counter() - started)
        dynamics.loss_and_gradient(varpi, k_val[:m], y_val[:m], tol=config.solver.tolerance)
        step.append(time.perf_counter() - started)
    return sum(step) / max(sum(alone), 1e-9)


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
class PilotData:
    """Training images x (m, H, W, C) with labels y, validation images, and whether they are a stand-in."""

    x: NDArray[Any]
    y: NDArray[np.int64]
    x_val: NDArray[Any]
    y_val: NDArray[np.int64]
    images: Images
    stand_in: bool


def subject_of(config: RunConfig, most: int) -> PilotData:
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
        return PilotData(_floats(x[rows], config), y[rows], _floats(x[val], config), y[val], known, False)
    return PilotData(_floats(x[rows], config), y[rows], _floats(x[val], config), y[val], known, True)


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
