"""A short calibration: a small build, a few blocks, one batch attacked, one product, a pilot; seconds for MLPs.

The pilot solves on a few of the images: passes, seconds and accuracies, from which those on all of them follow.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.attacks.registry import bind_attack
from advntk_dist.attacks.request import targets
from advntk_dist.config import AttackConfig, RunConfig
from advntk_dist.data import one_hot, split
from advntk_dist.data.dataset import to_unit_range
from advntk_dist.dynamics import ATDynamics
from advntk_dist.environment import environment, usable_cores
from advntk_dist.errors import DatasetError
from advntk_dist.gram import build_gram
from advntk_dist.kernels.compiled import block_edge
from advntk_dist.networks import Network, network
from advntk_dist.operators import InMemoryOperator
from advntk_dist.pipeline.directory import load_images
from advntk_dist.planning.calibration import Calibration, Pilot, Sample, UnitCosts, kernel_keys, varpi_after
from advntk_dist.planning.counts import Images
from advntk_dist.predictor import MEMORY, KernelPredictor
from advntk_dist.storage import Records
from advntk_dist.storage.durable import aligned_empty, read_pieces, write_flushed

Array = NDArray[Any]

PILOT = {"mlp": 1024}
"""Training images of the pilot by family of networks."""
PILOT_OTHERWISE = 512
_PRODUCT = 4096
_FILE_BYTES = 64 * 2**20
_BUILD_TILES = 3
_ATTACKED = 4
_LONG_ENOUGH = 0.33
_LEAST_CALLS, _MOST_CALLS = 2, 50


def calibrate(config: RunConfig, *, say: Callable[[str], None] = lambda text: None) -> Calibration:
    """Measure this machine for a configuration; starts and stops Ray once, and calls ``say`` before each part.

    Raises
    ------
    RequestError
        If the data are not there, or the request is impossible.
    """
    started, load = time.perf_counter(), [os.getloadavg()[0]]
    family = config.network.name.rpartition("-")[0]
    data = pilot_data(config, PILOT.get(family, PILOT_OTHERWISE))
    net = network(**config.network.model_dump(), classes=data.images.classes)
    limit = net.compiled.block_edge(data.x.shape[1:], data.x.itemsize)
    say("calibration: a small build by Ray actors")
    build = _build(config, net, data, limit)
    say(f"calibration: kernels and solves on {len(data.x)} images")
    theta = net.compiled.matrix(data.x, data.x, "ntk", symmetric=True)
    k_val = net.ntk(data.x_val, data.x)
    pilot = run_pilot(config, data, theta, k_val)
    say("calibration: one batch under attack, one product, one file")
    attack, products, disk = _attack(config, net, data, theta), _products(data.images.classes), _disk(len(data.x))
    gpu = jax.default_backend() == "gpu"
    return Calibration(
        of=kernel_keys(config),
        images=data.images,
        platform="gpu" if gpu else "cpu",
        cores=usable_cores(),
        gpus=jax.local_device_count() if gpu else 0,
        edge_limit=limit,
        costs=UnitCosts(**build, **attack, **products, **disk),
        pilot=pilot,
        environment=environment(),
        load=[*load, os.getloadavg()[0]],
        took=time.perf_counter() - started,
    )


def _build(config: RunConfig, net: Network, data: PilotData, limit: int) -> dict[str, float]:
    """Start of Ray and workers, and the pace of a worker while the others work."""
    edge = block_edge(min(config.gram.tile, config.data.n_train), limit)
    # Images are repeated: what one shows does not change the time.
    x = np.resize(data.x, (_BUILD_TILES * edge, *data.x.shape[1:]))
    ready: list[float] = []
    last: list[float] = []
    pairs: list[float] = []
    writes: list[float] = []

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "worker_ready":
            ready.append(time.perf_counter())

    def on_progress(done: int, total: int, receipt: Any) -> None:  # noqa: ARG001 - of the callback
        last.append(time.perf_counter())
        if receipt is not None:
            writes.append(receipt.write_seconds / receipt.bytes)
            if receipt.i != receipt.j:  # tiles on the diagonal are mirrored
                pairs.append(receipt.compute_seconds / edge**2)

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        store = build_gram(
            net,
            x,
            store=Path(folder) / "gram.zarr",
            tile=edge,
            dtype=config.gram.dtype,
            workers=config.gram.workers,
            on_progress=on_progress,
            on_event=on_event,
        )
        ended = time.perf_counter()
        read, _ = _clock(lambda: [store.read_tile("ntk", t.i, t.j) for t in store.grid])
    return {
        "start": ready[0] - begun,
        "stop": ended - last[-1],
        "pair": statistics.median(pairs),
        "write_byte": statistics.median(writes),
        "read_tile": read / len(store.grid),
    }


def _attack(config: RunConfig, net: Network, data: PilotData, theta: Array) -> dict[str, float]:
    """Seconds of a pair that is predicted, and attacked; those of an attack beside its steps, and of compilation."""
    batch, n = config.evaluation.batch, config.data.n_train
    shape, itemsize = data.x.shape[1:], data.x.itemsize
    rows = min(
        n,
        _ATTACKED * len(data.x) if net.family == "mlp" else net.compiled.block_of(n, batch, shape, itemsize, MEMORY),
    )
    y = one_hot(data.y, data.images.classes)
    varpi = varpi_after(config, config.train.steps) * n / len(theta)
    c = ATDynamics(theta, y).coefficients(varpi, tol=1e-3, throw=False).value
    prepare, predictor = _clock(
        lambda: KernelPredictor(net, np.resize(data.x, (rows, *shape)), np.resize(c, (rows, c.shape[1])), batch=batch)
    )
    x = np.resize(data.x_val, (batch, *shape))
    indices = np.arange(batch)
    first_query, guesses = _clock(lambda: predictor.predict(x))
    labels = guesses.argmax(axis=1)  # a run attacks what is classified correctly
    query = _pace(lambda: predictor.predict(x))

    def short(steps: int) -> AttackConfig:
        return config.attack.model_copy(update={"steps": steps, "queries": steps, "restarts": 1, "targets": 1})

    def attacked(steps: int) -> Callable[[], Any]:
        attack = bind_attack(short(steps))
        return lambda: attack(predictor, x, labels, seed=0, indices=indices)

    # What repeats no step is measured as it is, anything else with one step.
    steps = 1 if config.attack.spec.repeated else config.attack.steps
    first_attack, _ = _clock(attacked(steps))
    one, asked = _pace(attacked(steps)), config.attack.spec.cost(short(steps))
    wanted = targets(labels, data.images.classes, batch)
    predictor.value_and_slope(x, wanted)
    gradient = _pace(lambda: predictor.value_and_slope(x, wanted))
    predictor.value_and_jacobian(x)
    jacobian = _pace(lambda: predictor.value_and_jacobian(x))
    compared = asked.queries - 1 if asked.steps else 0
    if not asked.steps:  # a query also makes what it asks about
        step = max(query, (_pace(attacked(3)) - one) / 2)
    elif config.attack.spec.repeated is None:  # some images meet all of it, others less
        step = max(0.0, one - compared * query) / asked.steps
    else:
        step = gradient
    pairs = batch * rows
    return {
        "value": query / pairs,
        "gradient": gradient / pairs,
        "jacobian": jacobian / pairs,
        "step": step / pairs,
        "attack": max(0.0, one - asked.units * step - compared * query),
        "prepare": prepare,
        "first_query": max(0.0, first_query - query),
        "first_attack": max(0.0, first_attack - one),
    }


def _products(classes: int) -> dict[str, float]:
    """Seconds an entry of a matrix in memory: taken in, and in passes."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((_PRODUCT, _PRODUCT), dtype=np.float32)
    a += a.T.copy()
    hold, operator = _clock(lambda: InMemoryOperator(a))
    vectors = rng.standard_normal((_PRODUCT, classes))
    entries = _PRODUCT**2
    return {"entry": _pace(lambda: operator.matmat(vectors)) / entries, "hold_entry": hold / entries}


def _disk(n: int) -> dict[str, float]:
    """Seconds a byte read past the cache, of a table of checkpoints, and of a checkpoint of n numbers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bytes"
        block = aligned_empty((_FILE_BYTES,), np.uint8)
        block[:] = 1
        write_flushed(path, [memoryview(block.data)])
        read, _ = _clock(lambda: sum(len(piece) for piece in read_pieces(path)))
        group = zarr.create_group(str(Path(folder) / "group.zarr"))
        opened = [_clock(partial(Records, group, f"rows{place}", 8, (n,))) for place in range(4)]
        table = opened[-1][1]
        commits = [_clock(partial(table.write, row, np.zeros((1, n))))[0] for row in range(4)]
    table_seconds = statistics.median(seconds for seconds, _ in opened)
    return {"read_byte": read / _FILE_BYTES, "commit": statistics.median(commits), "table": table_seconds}


def _clock(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and what it returned."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def _pace(call: Callable[[], Any]) -> float:
    """Mean seconds of a call, over calls that take a third of a second together.

    The mean, not the shortest: a run will meet the same neighbours on the machine as this measurement does.
    """
    spent: list[float] = []
    while len(spent) < _LEAST_CALLS or (sum(spent) < _LONG_ENOUGH and len(spent) < _MOST_CALLS):
        spent.append(_clock(call)[0])
    return statistics.fmean(spent)


def strength_grid(config: RunConfig) -> list[float]:
    """Strengths t n, a factor of ten apart, from below the first to above the last that a run solves for."""
    n = config.data.n_train
    wanted = [t * n for t in (config.evaluation.times[0], config.evaluation.times[-1])]
    wanted += [varpi_after(config, step) * n for step in (1, config.train.steps)]
    low, high = (np.log10(f(wanted)) for f in (min, max))
    return [float(10.0**p) for p in np.linspace(low, high, 2 + int(np.ceil(high - low)))]


def run_pilot(config: RunConfig, data: PilotData, theta: Array, k_val: Array) -> Pilot:
    """Solve at all strengths, with all images and with half of them.

    ``theta`` (m, m) is the Gram matrix of the training images, ``k_val`` (v, m) the kernel of validation images with
    them.
    """
    grid, m = strength_grid(config), len(theta)
    half, whole = (_sample(config, data, theta, k_val, n, grid) for n in (max(2, m // 2), m))
    return Pilot(grid, half, whole, _step_ratio(config, data, theta, k_val), data.stand_in)


def _sample(config: RunConfig, data: PilotData, theta: Array, k_val: Array, n: int, strengths: list[float]) -> Sample:
    operator = InMemoryOperator(np.ascontiguousarray(theta[:n, :n]))
    y = one_hot(data.y[:n], data.images.classes)
    tol, to_val = config.solver.tolerance, k_val[:, :n]

    def solve(t: float) -> tuple[float, float, float]:
        found = []
        for _ in range(2):
            # A new one each time: the last basis would serve again.
            dynamics = ATDynamics(operator, y, ridge=config.solver.ridge, max_passes=config.solver.max_passes)
            seconds, solution = _clock(partial(dynamics.coefficients, 1.0, t=t, tol=tol, throw=False))
            found.append(seconds)
        hits = (to_val @ solution.value).argmax(axis=1) == data.y_val
        return float(solution.passes), sum(found) / len(found), float(hits.mean())

    passes, seconds, right = map(list, zip(*(solve(s / n) for s in strengths), strict=True))
    return Sample(n, passes, seconds, right, *solve(float("inf")))


def _step_ratio(config: RunConfig, data: PilotData, theta: Array, k_val: Array) -> float:
    """Seconds of the solves and the gradient of a training step over those of one basis, in the middle of training."""
    n, y = len(theta), one_hot(data.y, data.images.classes)
    # The same strength as on all images.
    varpi = varpi_after(config, config.train.steps // 2) * config.data.n_train / n
    y_val = one_hot(data.y_val, data.images.classes)
    m = min(len(k_val), config.train.batch)
    tol, operator, solves, gradients = config.solver.tolerance, InMemoryOperator(theta), 0.0, 0.0
    for _ in range(3):
        dynamics = ATDynamics(operator, y)
        solves += _clock(partial(dynamics.coefficients, varpi, tol=tol, throw=False))[0]
        gradients += _clock(partial(dynamics.loss_and_gradient, varpi, k_val[:m], y_val[:m], tol=tol))[0]
    return (solves + gradients) / max(solves, 1e-9)


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


def pilot_data(config: RunConfig, most: int) -> PilotData:
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
        (height, width, channels), classes = KNOWN[d.name].shape, KNOWN[d.name].classes
        shape = d.resize or height, d.resize or width, channels
        images, missing = Images(shape, len(d.class_subset) if d.class_subset else classes), True
        x, y = stand_in(m + v, images, d.seed)
        train, val = np.arange(m), m + np.arange(v)
    else:
        parts = split(dataset, n_train=d.n_train, n_val=d.n_val, n_test=d.n_test, seed=d.seed)
        height, width, channels = dataset.image_shape
        images, missing = Images((height, width, channels), dataset.n_classes), False
        x, y, train, val = dataset.x, dataset.y, parts.train[:m], parts.val[:v]

    def floats(rows: NDArray[np.int64]) -> NDArray[Any]:
        return to_unit_range(x[rows]).astype(config.gram.dtype)

    return PilotData(floats(train), y[train], floats(val), y[val], images, missing)


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
