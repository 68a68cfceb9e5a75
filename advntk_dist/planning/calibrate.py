"""A short calibration: a small build, a few blocks, one batch attacked, one product, a pilot; seconds for MLPs."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.attacks.registry import bind_attack
from advntk_dist.config import RunConfig
from advntk_dist.environment import environment
from advntk_dist.gram import build_gram
from advntk_dist.gram.tiles import block_edge
from advntk_dist.networks import Network, network
from advntk_dist.operators import InMemoryOperator
from advntk_dist.operators.base import usable_cores
from advntk_dist.planning.calibration import Calibration, kernel_keys
from advntk_dist.planning.counts import kernel_blocks
from advntk_dist.planning.pilot import PilotData, run_pilot, subject_of, varpi_after
from advntk_dist.predictor import MEMORY, KernelPredictor
from advntk_dist.solve.memory_budget import MAX_RANK
from advntk_dist.storage import Records
from advntk_dist.storage.direct_io import aligned_empty, read_pieces, write_flushed

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


def calibrate(
    config: RunConfig, *, build: dict[str, Any] | None = None, say: Callable[[str], None] = lambda text: None
) -> Calibration:
    """Measure this machine for a configuration; starts and stops Ray once.

    Parameters
    ----------
    config
        Of the run that is planned.
    build
        What is known of builds here: start, stop, pair, write_byte, edge_limit and read_tile, as :class:`Calibration`
        has them. By default a small one is made, which alone needs Ray.
    say
        Called with a line before each part.

    Raises
    ------
    RequestError
        If the data are not there, or the request is impossible.
    """
    started, load = time.perf_counter(), [os.getloadavg()[0]]
    n_ = config.network
    family = n_.name.rpartition("-")[0]
    subject = subject_of(config, PILOT.get(family, PILOT_OTHERWISE))
    net = network(
        n_.name,
        W_std=n_.W_std,
        b_std=n_.b_std,
        activation=n_.activation,
        backend=n_.backend,
        classes=subject.images.classes,
    )
    if build is None:
        say("calibration: a small build by Ray actors")
        build = _build(config, net, subject)
    say(f"calibration: kernels and solves on {len(subject.x)} images")
    theta, k_val, kernels = _kernels(config, net, subject)
    pilot = run_pilot(config, subject, theta, k_val)
    say("calibration: one batch under attack, one product, one file")
    gpu = jax.default_backend() == "gpu"
    return Calibration(
        of=kernel_keys(config),
        images=subject.images,
        platform="gpu" if gpu else "cpu",
        cores=usable_cores(),
        gpus=jax.local_device_count() if gpu else 0,
        **build,
        **kernels,
        **_attack(config, net, subject, theta),
        **_products(subject.images.classes),
        **_disk(len(subject.x)),
        pilot=pilot,
        environment=environment(),
        load=[*load, os.getloadavg()[0]],
        took=time.perf_counter() - started,
    )


def _build(config: RunConfig, net: Network, subject: PilotData) -> dict[str, Any]:
    """Start of Ray and workers, and the pace of a worker while the others work."""
    shape, itemsize = subject.x.shape[1:], subject.x.itemsize
    limit = net.compiled.block_edge(shape, itemsize)
    edge = block_edge(min(config.gram.tile, config.data.n_train), limit)
    x = np.resize(subject.x, (_BUILD_TILES * edge, *shape))  # repeated: what an image shows does not change the time
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
            mirrored = receipt.i == receipt.j
            pairs.append(receipt.compute_seconds / edge**2 if not mirrored else float("inf"))
            writes.append(receipt.write_seconds / receipt.bytes)

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
    measured = [p for p in pairs if np.isfinite(p)]
    return {
        "start": ready[0] - begun,
        "stop": ended - last[-1],
        "pair": statistics.median(measured),
        "write_byte": statistics.median(writes),
        "edge_limit": limit,
        "read_tile": read / len(store.grid),
    }


def _kernels(config: RunConfig, net: Network, subject: PilotData) -> tuple[Array, Array, dict[str, Any]]:
    """Gram matrix and validation kernel of the pilot; seconds of a block of the latter."""
    batch = subject.x_val[: min(config.train.batch, len(subject.x_val))]
    first, _ = _clock(lambda: net.ntk(batch, subject.x))
    again = _pace(lambda: net.ntk(batch, subject.x))
    limit = net.compiled.block_edge(subject.x.shape[1:], subject.x.itemsize)
    blocks = kernel_blocks(len(batch), len(subject.x), limit)
    theta = net.compiled.matrix(subject.x, subject.x, "ntk", symmetric=True)
    k_val = net.ntk(subject.x_val, subject.x)
    return theta, k_val, {"first_kernel": max(0.0, first - again), "block": again / blocks}


def _attack(config: RunConfig, net: Network, subject: PilotData, theta: Array) -> dict[str, Any]:
    """Seconds of a batch: predicted, and attacked."""
    from advntk_dist.data import one_hot
    from advntk_dist.dynamics import ATDynamics

    batch, n = config.evaluation.batch, config.data.n_train
    shape, itemsize = subject.x.shape[1:], subject.x.itemsize
    rows = min(
        n,
        _ATTACKED * len(subject.x) if net.family == "mlp" else net.compiled.block_of(n, batch, shape, itemsize, MEMORY),
    )
    y = one_hot(subject.y, subject.images.classes)
    varpi = varpi_after(config, config.train.steps) * n / len(theta)
    c = ATDynamics(theta, y).coefficients(varpi, tol=1e-3, throw=False).value
    prepare, predictor = _clock(
        lambda: KernelPredictor(
            net, np.resize(subject.x, (rows, *shape)), np.resize(c, (rows, c.shape[1])), batch=batch
        )
    )
    x = np.resize(subject.x_val, (batch, *shape))
    labels = np.resize(subject.y_val, batch)
    first_query, _ = _clock(lambda: predictor.predict(x))
    query = _pace(lambda: predictor.predict(x))

    def attacked(steps: int) -> Callable[[], Any]:
        changes = {"steps": steps, "queries": steps, "restarts": 1, "targets": 1}
        attack = bind_attack(config.attack.model_copy(update=changes))
        return lambda: attack(predictor, x, labels, seed=0, indices=np.arange(batch))

    first_attack, _ = _clock(attacked(1))
    one = _pace(attacked(1))
    if config.attack.spec.repeated is None:
        step, host = one, 0.0
    else:
        three = _pace(attacked(3))
        step = max((three - one) / 2, 0.0)
        host = max(one - step, 0.0)
    return {
        "rows": rows,
        "query": query,
        "step": step,
        "host": host,
        "prepare": prepare,
        "first_query": max(0.0, first_query - query),
        "first_attack": max(0.0, first_attack - one),
    }


def _products(classes: int) -> dict[str, Any]:
    """Seconds an entry of a matrix in memory: taken in, and in passes with few and with many vectors."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((_PRODUCT, _PRODUCT), dtype=np.float32)
    a += a.T.copy()
    hold, operator = _clock(lambda: InMemoryOperator(a))
    few, many = (rng.standard_normal((_PRODUCT, k)) for k in (classes, MAX_RANK))
    narrow, wide = _pace(lambda: operator.matmat(few)), _pace(lambda: operator.matmat(many))
    entries = _PRODUCT**2
    return {"entry": narrow / entries, "sketch_entry": wide / entries, "hold_entry": hold / entries}


def _disk(n: int) -> dict[str, Any]:
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
