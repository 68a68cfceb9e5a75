"""Measure the Gram engine on CIFAR-10 images; prints JSON and writes it beside this file.

    python tests/benchmarks/gram.py CIFAR_FOLDER STORE_FOLDER [--network mlp-5] [--n 50000] [--small 8000]

CIFAR_FOLDER holds CIFAR-10 in its binary layout (data_batch_1.bin ...), or is its parent. STORE_FOLDER must be empty
and have room for the store (5.5 GB for 50,000 images in float32).

The kernel's own time is measured on one core with the others idle, and on all cores at once. Before the full build the
memory that it will take is touched once: on a virtual machine the first use of a page can cost more than the kernel
that fills it, and that is no property of the engine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.data import load_dataset
from advntk_dist.distributed.worker import worker_environment
from advntk_dist.environment import environment, usable_cores
from advntk_dist.gram.build import build_gram
from advntk_dist.gram.plan import GramPlan
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.verify import verify_gram
from advntk_dist.gram.worker import Receipt
from advntk_dist.kernels.backend import KernelKind
from advntk_dist.kernels.compiled import block_edge
from advntk_dist.kernels.nonfinite import compute_images
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.networks import network
from advntk_dist.operators.audit import audit_gram
from advntk_dist.operators.tiled import TiledOperator
from advntk_dist.storage.paths import local
from bench import RESULTS, options, write

TILE = 2048


def load(folder: Path, n: int) -> NDArray[np.uint8]:
    """The first n training images of CIFAR-10."""
    data = load_dataset(str(folder))
    assert data.test_start is not None
    return data.x[: min(n, data.test_start)]


def in_own_process(part: str, arguments: argparse.Namespace, copies: int = 1) -> list[Any]:
    """Run one part of this script in processes of its own; the kernel set up as a worker with one core is."""
    env = {**os.environ, **worker_environment(1, gpu=False)} if part == "kernel" else dict(os.environ)
    command = [sys.executable, __file__, str(arguments.cifar), str(arguments.store), "--part", part]
    command += ["--network", arguments.network, "--small", str(arguments.small)]
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(copies)]
    results = []
    for process in running:
        out, _ = process.communicate(timeout=1800)
        if process.returncode:
            raise SystemExit(f"part {part} failed")
        results.append(json.loads(out.splitlines()[-1]))
    return results


def measure_kernel(arguments: argparse.Namespace) -> dict[str, float]:
    """The jitted kernel's own time a pair, on one core, on images already in JAX's hands."""
    import jax

    x = compute_images(load(arguments.cifar, 2 * TILE), TILE, "float32")
    kernel = network(arguments.network).tile_kernel
    edge = block_edge(TILE, kernel.block_edge(x.shape[1:], x.itemsize))
    found = {}
    some_kinds: tuple[tuple[KernelKind, ...], ...] = (("ntk",), ("ntk", "nngp"))
    for kinds in some_kinds:
        with kernel_scope():
            a, b = jax.device_put(x[:edge]), jax.device_put(x[TILE : TILE + edge])
            jax.block_until_ready(kernel._block(a, b, kinds))  # type: ignore[no-untyped-call]
            times = []
            end = time.perf_counter() + 5
            while time.perf_counter() < end:
                started = time.perf_counter()
                jax.block_until_ready(kernel._block(a, b, kinds))  # type: ignore[no-untyped-call]
                times.append(time.perf_counter() - started)
        found["+".join(kinds)] = float(np.median(times)) / edge**2
    return found


def measure_peer(arguments: argparse.Namespace) -> dict[str, float]:
    """neural_tangents.batch on all pairs of the small set, all cores; the better of its plain and jitted forms."""
    import jax

    from advntk_dist import neural_tangents_adapter  # noqa: F401 - makes the next import work
    import neural_tangents  # isort: skip

    x = compute_images(load(arguments.cifar, arguments.small), TILE, "float32")
    kernel = network(arguments.network).kernel_fn
    found = {}
    for name, function in (("plain", kernel), ("jitted", jax.jit(kernel, static_argnums=2))):
        batched = neural_tangents.batch(function, batch_size=1000, store_on_device=False)
        np.asarray(batched(x[:2000], x[:2000], "ntk"))
        started = time.perf_counter()
        np.asarray(batched(x, x, "ntk"))
        found[name] = time.perf_counter() - started
    return found


def timed_build(arguments: argparse.Namespace, x: NDArray[np.uint8], name: str, **keywords: Any) -> dict[str, Any]:
    """Build a store and say how long its tiles took, from the first hand-out to the last receipt, and all of it."""
    receipts: list[Receipt] = []
    plans: list[GramPlan] = []
    times: list[float] = []

    def plan(found: GramPlan) -> None:
        plans.append(found)
        times.append(time.perf_counter())

    def progress(done: int, total: int, receipt: Receipt | None) -> None:
        if receipt is not None:
            receipts.append(receipt)
            times.append(time.perf_counter())

    shutil.rmtree(arguments.store / name, ignore_errors=True)
    started = time.perf_counter()
    store = build_gram(
        network(arguments.network), x, store=arguments.store / name, tile=TILE,
        on_plan=plan, on_progress=progress, **keywords,
    )  # fmt: skip
    ended = time.perf_counter()
    n = len(x)
    return {
        "n": n,
        "workers": len({r.pid for r in receipts}),
        "tiles": len(receipts),
        "distinct_pairs": n * (n + 1) // 2,
        "seconds": ended - started,
        "tile_seconds": times[-1] - times[0],
        "compute_seconds": sum(r.compute_seconds for r in receipts),
        "write_seconds": sum(r.write_seconds for r in receipts),
        "planned": {"seconds": plans[0].seconds, "disk_bytes": plans[0].disk_bytes,
                    "worker_bytes": plans[0].worker_bytes + plans[0].image_bytes},
        "peak_worker_bytes": max(r.peak_bytes for r in receipts),
        "store_bytes": sum(p.stat().st_blocks * 512 for p in local(store.path).rglob("*") if p.is_file()),
    }  # fmt: skip


def check(arguments: argparse.Namespace, x: NDArray[np.uint8], name: str) -> dict[str, Any]:
    """Verify, audit and read the full store."""
    store = GramStore.open(arguments.store / name)
    started = time.perf_counter()
    report = verify_gram(store)
    verified = time.perf_counter()
    assert report.ok, report
    operator = TiledOperator(store, threads=usable_cores())
    operator.matmat(np.random.default_rng(0).standard_normal((store.n, 10)))
    product = time.perf_counter()
    audit = audit_gram(store, x, tiles=4, passes=10)
    return {
        "verify_seconds": verified - started,
        "matmat_10_seconds": product - verified,
        "audit_seconds": time.perf_counter() - product,
        "largest_relative_difference": audit.largest_difference,
        "smallest_eigenvalue_at_most": audit.smallest_eigenvalue,
        "largest_eigenvalue_at_least": audit.largest_eigenvalue,
        "eigenvalue_noise": audit.eigenvalue_noise,
    }


def main() -> None:
    """Run all parts, or the one that a child process is asked for."""
    parser = options(__doc__)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--network", default="mlp-5")
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--small", type=int, default=8_000)
    parser.add_argument("--scaling", type=int, default=24_000, help="images of the builds by one and by two workers")
    parser.add_argument("--part", choices=("kernel", "peer", "touch"))
    arguments = parser.parse_args()
    if arguments.part == "touch":
        print(json.dumps(np.ones(2 * arguments.n**2, np.uint8)[0].item()))
        return
    if arguments.part:
        print(json.dumps(measure_kernel(arguments) if arguments.part == "kernel" else measure_peer(arguments)))
        return
    cores = usable_cores()
    kernel = in_own_process("kernel", arguments)[0]
    together = in_own_process("kernel", arguments, copies=cores)
    busy = float(np.mean([k["ntk"] for k in together]))
    peer = in_own_process("peer", arguments)[0]
    x = load(arguments.cifar, arguments.n)
    small = timed_build(arguments, x[: arguments.small], "small.zarr", workers=2)
    both = timed_build(arguments, x[: arguments.small], "both.zarr", workers=2, kinds=("ntk", "nngp"))
    one = timed_build(arguments, x[: arguments.scaling], "one.zarr", workers=1)
    two = timed_build(arguments, x[: arguments.scaling], "two.zarr", workers=2)
    in_own_process("touch", arguments)
    full = timed_build(arguments, x, "full.zarr")
    ideal = full["distinct_pairs"] * kernel["ntk"] / full["workers"]
    result = {
        "network": arguments.network,
        "tile": TILE,
        "environment": environment(),
        "kernel_seconds_a_pair": {**kernel, "ntk, all cores busy": busy},
        "full": full,
        "full_over_ideal": {
            "tiles": full["tile_seconds"] / ideal,
            "tiles, against the kernel with all cores busy": full["tile_seconds"] / ideal * kernel["ntk"] / busy,
            "all": full["seconds"] / ideal,
        },
        "one": one,
        "two": two,
        "two_workers_over_twice_one": {
            "engine": one["tile_seconds"] / (2 * two["tile_seconds"]),
            "bare kernel": kernel["ntk"] / busy,
        },
        "small": small,
        "small, both kinds": both,
        "both_kinds_over_one": both["tile_seconds"] / small["tile_seconds"],
        "neural_tangents_batch_seconds": peer,
        "faster_than_neural_tangents_batch": {
            "tiles": min(peer.values()) / small["tile_seconds"],
            "all": min(peer.values()) / small["seconds"],
        },
        "checked": check(arguments, x, "full.zarr"),
    }
    write(RESULTS / f"gram-{arguments.network}.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
