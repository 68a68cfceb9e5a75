"""Cost of the solver: a pass, an Adv-NTK update, a trajectory, and a dense rival; JSON with the environment.

    python tests/benchmarks/solver.py --run RUN --images PATH        # the Gram store and the varpi of a finished run
    python tests/benchmarks/solver.py --images PATH --n 4000         # builds a store and trains varpi itself first

Parts (--parts): "pass" holds a product with 10 vectors against the larger of reading the same bytes and the arithmetic
at the machine's matrix-product rate, with files in and out of the page cache; "update" counts the passes of loss and
gradient at trained varpi; "trajectory" holds 200 times against one solve; "rival" is what the paper's code does, a
dense matrix exponential with automatic differentiation through it, in float64. Rivals run in turn in this process.
"memory" (not by default) solves in a process of its own with --budget bytes, a fraction of the matrix, and measures its
peak: a trajectory, its limit, loss and gradient. "held", "limit" and "tolerance" (not by default) are in
``solver_parts.py``. --out is updated, parts that are not measured stay as they are.
"wall" is elapsed time, "cpu" the processor time of all threads, which load disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import zarr
from jax.scipy.linalg import expm
from numpy.typing import NDArray

import advntk_dist as advntk
from advntk_dist import pgd
from advntk_dist.config import load_config
from advntk_dist.data import Dataset, load_dataset, one_hot, split
from advntk_dist.dynamics import ATDynamics
from advntk_dist.environment import usable_cores
from advntk_dist.gram.store import GramStore
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.networks import network
from advntk_dist.operators import TiledOperator, operator_for_store
from advntk_dist.pipeline.context import Problem
from advntk_dist.pipeline.directory import RunDirectory
from advntk_dist.predictor import KernelPredictor
from advntk_dist.storage import Records
from advntk_dist.storage.paths import local
from advntk_dist.training import PaperRecipe, train_adv_ntk
from bench import CLOCKS, machine, medians, options, write
from solver_parts import TOLERANCE, K, kernel_of, measure_held, measure_limit, measure_tolerance

Array = NDArray[np.float64]

TIMES = 200
OF_THEIR_OWN = {"memory", "held", "limit", "tolerance"}
"""Parts that say themselves on which machine they were measured, or are not timed."""
GOALS = {"pass": 1.3, "update passes": 20, "trajectory": 1.2, "rival": 100}


def read_all(paths: list[Path], threads: int) -> None:
    """Read every file into a small buffer, as fast as this machine can."""

    def read(path: Path) -> None:
        buffer = memoryview(bytearray(2**19))
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, paths))


def forget(paths: list[Path]) -> None:
    """Drop files from the page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure_pass(store: GramStore, repeats: int) -> dict[str, Any]:
    """One product with K vectors, out of core, against reading and arithmetic."""
    threads = usable_cores()
    operator = TiledOperator(store, threads=threads)
    v = np.random.default_rng(0).standard_normal((store.n, K))
    paths = [local(store.chunk_path("ntk", t.i, t.j)) for t in store.grid]
    edge = 3072
    square = np.random.default_rng(1).standard_normal((edge, edge))
    thin = np.ascontiguousarray(square[:, :K])
    operator.matmat(v)  # the first pass verifies checksums
    cached = medians(
        {
            "pass": lambda: operator.matmat(v),
            "read": lambda: read_all(paths, threads),
            "product": lambda: square @ square,
            "thin product": lambda: square @ thin,
        },
        repeats,
    )
    uncached = medians(
        {"pass": lambda: operator.matmat(v), "read": lambda: read_all(paths, threads)},
        max(1, repeats // 2),
        before=lambda: forget(paths),
    )
    flops = 2 * store.n**2 * K
    rates = {
        "square": {c: 2 * edge**3 / cached["product"][c] for c in CLOCKS},
        "thin": {c: 2 * edge**2 * K / cached["thin product"][c] for c in CLOCKS},
    }
    arithmetic = {shape: {c: flops / rate[c] for c in rate} for shape, rate in rates.items()}
    ratios = {
        f"cached, {shape} product, {c}": cached["pass"][c] / max(cached["read"][c], arithmetic[shape][c])
        for shape in rates
        for c in CLOCKS
    }
    ratios["from disk"] = uncached["pass"]["wall"] / max(uncached["read"]["wall"], arithmetic["square"]["wall"])
    return {
        "n": store.n,
        "tile": store.tile,
        "bytes": sum(path.stat().st_size for path in paths),
        "seconds": {"cached": cached, "from disk": uncached, "arithmetic": arithmetic},
        "flops_a_second": rates,
        "ratio": ratios,
        "goal": GOALS["pass"],
    }


def measure_update(dynamics: ATDynamics, varpi: Array, k_val: Any, y_val: Array, repeats: int) -> dict[str, Any]:
    """Coefficients, loss and gradient at trained varpi."""
    passes: list[int] = []
    bounds: list[float] = []

    def update() -> None:
        fresh = ATDynamics(dynamics.operator, dynamics.y, memory=dynamics.memory)
        before = fresh.operator.passes
        bounds.append(fresh.coefficients(varpi, tol=TOLERANCE).error)
        fresh.loss_and_gradient(varpi, k_val, y_val, tol=TOLERANCE)
        passes.append(fresh.operator.passes - before)

    seconds = medians({"update": update}, repeats)["update"]
    return {
        "n": len(varpi),
        "operator": dynamics.operator.description,
        "tolerance": TOLERANCE,
        "passes": max(passes),
        "goal": GOALS["update passes"],
        "error_bound": max(bounds),
        "seconds": seconds,
        "varpi": {"mean": float(varpi.mean()), "max": float(varpi.max())},
    }


def measure_trajectory(dynamics: ATDynamics, varpi: Array, repeats: int) -> dict[str, Any]:
    """200 times against the last of them alone."""
    times = np.geomspace(1e-3, 1.0, TIMES).tolist()

    def solve(at: list[float]) -> None:
        ATDynamics(dynamics.operator, dynamics.y, memory=dynamics.memory).trajectory(varpi, at, TOLERANCE)

    seconds = medians({"all": lambda: solve(times), "one": lambda: solve(times[-1:])}, repeats)
    return {
        "n": len(varpi),
        "times": TIMES,
        "seconds": seconds,
        "ratio": {c: seconds["all"][c] / seconds["one"][c] for c in CLOCKS},
        "goal": GOALS["trajectory"],
    }


def dense_update(theta: Array, y: Array, k_val: Array, y_val: Array) -> Callable[[Array], Any]:
    """Loss and gradient in varpi through a dense matrix exponential; the inverse is formed once, outside."""
    with kernel_scope():
        matrix, targets, rows, wanted = map(jnp.asarray, (theta, y, k_val, y_val))
        projected = jnp.linalg.solve(matrix, rows.T).T

        def loss(varpi: jax.Array) -> jax.Array:
            decay = expm(-matrix * varpi, max_squarings=40)
            return 0.5 * jnp.sum((projected @ (targets - decay @ targets) - wanted) ** 2) / len(wanted)

        compiled = jax.jit(jax.value_and_grad(loss)).lower(jnp.asarray(y[:, 0])).compile()

    def call(varpi: Array) -> Any:
        with kernel_scope():
            return jax.block_until_ready(compiled(jnp.asarray(varpi)))

    return call


def measure_rival(data: Dataset, sizes: list[int]) -> dict[str, Any]:
    """Loss and gradient, ours and dense, over growing n, in float64; varpi trained on clean images."""
    net, m = network("mlp-5"), 128
    rows: list[dict[str, Any]] = []
    chosen = split(data, n_train=max(sizes), n_val=m, n_test=1, seed=0)
    images = data.x.astype(np.float64)
    for n in sizes:
        train = chosen.train[:n]
        x, x_val = (images[part] / 255 - 0.5 for part in (train, chosen.val))
        theta, k_val = np.array(net.ntk(x, x)), np.array(net.ntk(x_val, x))
        theta = (theta + theta.T) / 2
        y, y_val = (np.asarray(one_hot(data.y[part], data.n_classes)) for part in (train, chosen.val))
        varpi = np.zeros(n)
        for _ in range(20):
            _, gradient = ATDynamics(theta, y).loss_and_gradient(varpi, k_val, y_val, tol=TOLERANCE)
            varpi = np.abs(varpi - 0.1 * gradient / np.linalg.norm(gradient))
        dense = dense_update(theta, y, k_val, y_val)

        def ours(theta: Array = theta, y: Array = y, varpi: Array = varpi, k: Array = k_val, w: Array = y_val) -> Any:
            return ATDynamics(theta, y).loss_and_gradient(varpi, k, w, tol=TOLERANCE)

        def rival(dense: Callable[[Array], Any] = dense, varpi: Array = varpi) -> Any:
            return dense(varpi)

        (loss, gradient), (expected, reference) = ours(), rival()
        seconds = medians({"ours": ours, "dense": rival}, 1 if n > 2000 else 3)
        seconds["ours"] = medians({"ours": ours}, 5)["ours"]
        reference = np.asarray(reference)
        row: dict[str, Any] = {
            "n": n,
            "seconds": seconds,
            "ratio": {c: seconds["dense"][c] / seconds["ours"][c] for c in CLOCKS},
            "relative_difference": {
                "loss": abs(float(expected) - loss) / abs(float(expected)),
                "gradient": float(np.linalg.norm(gradient - reference) / np.linalg.norm(reference)),
            },
        }
        print(f"  n = {n}: ours {seconds['ours']['wall']:.3f} s, dense {seconds['dense']['wall']:.2f} s", flush=True)
        rows.append(row)
    logs = np.log([row["n"] for row in rows])
    return {
        "sizes": rows,
        "exponent": {
            who: {c: float(np.polyfit(logs, np.log([row["seconds"][who][c] for row in rows]), 1)[0])
                  for c in CLOCKS}
            for who in ("ours", "dense")
        } if len(rows) > 1 else {},
        "goal_at_4000": GOALS["rival"],
    }  # fmt: skip


def measure_memory(store: GramStore, budget: int, folder: Path) -> dict[str, Any]:
    """Peak of a process that solves within ``budget`` bytes, over what it had after the same work on a small store."""
    data = load_dataset("digits")
    small = advntk.build_gram(network("mlp-2"), data.x[:600], store=folder / "small.zarr", tile=256)
    driver = Path(__file__).parents[1] / "solve" / "memory_driver.py"
    command = [sys.executable, str(driver), str(small.path), str(store.path), str(budget), str(folder / "scratch")]
    command.append("0.002")  # times of about the size that training reaches
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    return {
        "n": store.n,
        "matrix_bytes": store.n**2 * store.dtype.itemsize,
        "budget": budget,
        "peak": answer["peak"],
        "spilled": answer["spilled"],
        "columns": answer["columns"],
        "seconds": time.perf_counter() - start,
    }


def trained(arguments: argparse.Namespace, data: Dataset, folder: Path) -> tuple[GramStore, Array, Array, Any, Array]:
    """Store, targets, trained varpi, and the kernel and targets of a validation batch; from a run, or made here."""
    if arguments.run is not None:
        run = RunDirectory.at(arguments.run)
        config = load_config(local(run.config))
        problem = Problem(config)
        store, steps = GramStore.open(run.gram), config.train.steps
        varpi = Records(zarr.open_group(run.train, mode="r"), "varpi", steps + 1, (store.n,)).read(steps)
        assert varpi is not None, f"{run.root} is not finished"
        val = problem.val.first(config.train.batch)
        k_val = problem.net.ntk(val.x, problem.train.x)
        return store, problem.targets, varpi[0], k_val, np.asarray(one_hot(val.y, problem.dataset.n_classes))
    net = network("mlp-5")
    chosen = split(data, n_train=arguments.n, n_val=512, n_test=1, seed=0)
    raw = data.x[chosen.train]
    x, x_val = (data.x[part].astype(np.float32) / 255 - 0.5 for part in (chosen.train, chosen.val))
    y, labels = np.asarray(one_hot(data.y[chosen.train], data.n_classes)), data.y[chosen.val]
    store = advntk.build_gram(net, raw, store=folder / "gram.zarr", tile=arguments.tile)
    with operator_for_store(store, memory=arguments.memory) as operator:
        dynamics = ATDynamics(operator, y, memory=arguments.memory)
        predictor = KernelPredictor(net, x, np.zeros_like(y))
        attack = partial(pgd, radius=8 / 255, steps=10, step_size=1.6 / 255)
        recipe = PaperRecipe(x, x_val, labels, attack, lr=0.1, batch=128, seed=0, tolerance=TOLERANCE)
        group = zarr.open_group(folder / "train.zarr", mode="w")
        run_ = train_adv_ntk(recipe, lambda: dynamics, lambda: predictor, len(x), group=group, steps=arguments.steps)
    return store, y, run_.varpi, net.ntk(x_val[:128], x), np.asarray(one_hot(labels[:128], data.n_classes))


def main() -> None:
    """Measure, print, write the JSON."""
    parser = options(__doc__, "solver.json")
    parser.add_argument("--images", default="digits", help='a dataset: a path, or "digits"')
    parser.add_argument("--run", type=Path, help="directory of a finished run")
    parser.add_argument("--n", type=int, default=1000, help="training images, without --run")
    parser.add_argument("--tile", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=50, help="training steps, without --run")
    parser.add_argument("--memory", type=int, default=4 * 2**30, help="solver.memory, in bytes")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the part tolerance, for each tolerance")
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 2000, 4000], help="n of the rival")
    parser.add_argument("--budget", type=int, default=2**29, help="memory of the part memory, in bytes")
    parser.add_argument("--parts", nargs="+", default=["pass", "update", "trajectory", "rival"])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    data = load_dataset(arguments.images)
    results: dict[str, Any] = {}
    if arguments.out.exists():
        results = json.loads(arguments.out.read_text())["results"]
    with tempfile.TemporaryDirectory() as folder:
        if {"pass", "update", "trajectory", "memory"} & set(arguments.parts):
            store, y, varpi, k_val, y_val = trained(arguments, data, Path(folder))
            if "pass" in arguments.parts:
                results["pass"] = measure_pass(store, arguments.repeats)
                print("pass:", {k: round(v, 2) for k, v in results["pass"]["ratio"].items()}, flush=True)
            if "memory" in arguments.parts:
                results["memory"] = measure_memory(store, arguments.budget, Path(folder))
                print("memory:", results["memory"], flush=True)
            with operator_for_store(store, memory=arguments.memory) as operator:
                dynamics = ATDynamics(operator, y, memory=arguments.memory)
                if "update" in arguments.parts:
                    results["update"] = measure_update(dynamics, varpi, k_val, y_val, min(3, arguments.repeats))
                    print("update:", results["update"]["passes"], "passes", results["update"]["seconds"], flush=True)
                if "trajectory" in arguments.parts:
                    results["trajectory"] = measure_trajectory(dynamics, varpi, min(3, arguments.repeats))
                    print("trajectory:", results["trajectory"]["ratio"], flush=True)
        if {"held", "limit"} & set(arguments.parts):
            theta, y = kernel_of(data, arguments.n)
            if "held" in arguments.parts:
                results["held"] = measure_held(theta, arguments.repeats) | {"environment": machine()}
                print("held:", results["held"]["ratio"], flush=True)
            if "limit" in arguments.parts:
                results["limit"] = measure_limit(theta, y, min(3, arguments.repeats)) | {"environment": machine()}
                print("limit:", results["limit"]["products"], results["limit"]["seconds"], flush=True)
        if "tolerance" in arguments.parts:
            found = measure_tolerance(data, arguments.n, arguments.seeds)
            results["tolerance"] = found | {"environment": machine()}
        if "rival" in arguments.parts:
            results["rival"] = measure_rival(data, arguments.sizes)
            print("rival:", results["rival"]["sizes"][-1]["ratio"], results["rival"]["exponent"], flush=True)
    if set(arguments.parts) <= OF_THEIR_OWN and arguments.out.exists():
        described = json.loads(arguments.out.read_text())["environment"]  # the timed parts are of another hour
    else:
        described = machine()
    write(arguments.out, {"environment": described, "results": results})


if __name__ == "__main__":
    main()
