"""Measure the xla backend and jitted neural-tangents on the same tiles of one GPU; prints a table and writes JSON.

    python tests/benchmarks/gpu.py [--networks cnn-10 mlp-5] [--repeats 9] [--out FILE]

The two are timed in turn, and every figure is a median. Times are for float32, elapsed, with the images on the
device and the right-hand images prepared; "full" extrapolates to the 1.25e9 distinct pairs of 50,000 images.
Without a GPU it says so and exits with status 2.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advntk_dist.environment import environment
from advntk_dist.kernels.backend import KernelBackend, NeuralTangentsBackend
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.kernels.xla import XlaBackend
from advntk_dist.networks import network
from advntk_dist.spec import parse_name
from bench import options, timed, write

W_STD, B_STD = 1.76, 0.18
IMAGE = (32, 32, 3)
TILES = {"mlp": (4096, 4096), "cnn": (128, 128)}
FULL = 1.25e9
"""Distinct pairs of 50,000 images."""
GOALS = {"cnn-10": {"full_seconds": 180.0, "ratio_to_neural_tangents": 10.0}}


def measure(name: str, tile: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Times of one network, a pair and in full, and the differences of the two from each other."""
    known = parse_name(name)
    assert known is not None
    rng = np.random.default_rng(0)
    x1, x2 = (jnp.asarray(rng.uniform(-0.5, 0.5, (n, *IMAGE)), jnp.float32) for n in tile)
    weight = jnp.asarray(rng.standard_normal(tile), jnp.float32)
    backends: dict[str, KernelBackend] = {
        "xla": XlaBackend(*known, W_STD, B_STD),
        "neural-tangents": NeuralTangentsBackend(network(name, W_std=W_STD, b_std=B_STD).kernel_fn),
    }
    calls: dict[str, Callable[[], Any]] = {}
    results, failed, compile_seconds = {}, {}, {}
    for who, backend in backends.items():
        right = jax.jit(backend.prepare)(x2)
        value = partial(backend.tile, kind="ntk")
        for what, f, arguments in (("value", value, (x1, right)), ("gradient", backend.tile_vjp, (x1, right, weight))):
            key = f"{who} {what}"
            start = time.perf_counter()
            try:
                done = jax.jit(f).lower(*arguments).compile()
                compile_seconds[key] = time.perf_counter() - start
                results[key] = jax.block_until_ready(done(*arguments))
            except jax.errors.JaxRuntimeError as error:  # out of memory, above all: the others are still worth timing
                failed[key] = str(error).splitlines()[0]
                continue
            calls[key] = lambda done=done, arguments=arguments: jax.block_until_ready(done(*arguments))  # type: ignore[misc]
    samples = {key: [wall for wall, _ in s] for key, s in timed(calls, repeats).items()}
    seconds = {key: statistics.median(s) / (tile[0] * tile[1]) for key, s in samples.items()}
    return {
        "tile": list(tile),
        "repeats": repeats,
        "nanoseconds_a_pair": {key: 1e9 * s for key, s in seconds.items()},
        "spread": {key: (max(s) - min(s)) / statistics.median(s) for key, s in samples.items()},
        "full_seconds": {key: FULL * s for key, s in seconds.items()},
        "compile_seconds": compile_seconds,
        "failed": failed,
        "relative_difference": differences(results),
    }


def differences(results: dict[str, Any]) -> dict[str, float]:
    """Largest difference of the values, and norm of that of the gradients, relative to neural-tangents, in float32."""
    out = {}
    if {"xla value", "neural-tangents value"} <= results.keys():
        ours, theirs = results["xla value"], results["neural-tangents value"]
        out["value"] = float(jnp.abs(ours - theirs).max() / jnp.abs(theirs).max())
    if {"xla gradient", "neural-tangents gradient"} <= results.keys():
        ours, theirs = results["xla gradient"][1], results["neural-tangents gradient"][1]
        out["gradient"] = float(jnp.linalg.norm(ours - theirs) / jnp.linalg.norm(theirs))
    return out


def report(name: str, result: dict[str, Any]) -> None:
    """Add the ratios to ``result``, and print its lines."""
    result["ratio_to_neural_tangents"] = {}
    times = result["nanoseconds_a_pair"]
    for what in ("value", "gradient"):
        cells = []
        for who in ("xla", "neural-tangents"):
            time_ = times.get(f"{who} {what}")
            cells.append(f"{time_:16.3f}" if time_ else f"{'failed':>16}")
        ours, theirs = times.get(f"xla {what}"), times.get(f"neural-tangents {what}")
        if ours and theirs:
            result["ratio_to_neural_tangents"][what] = theirs / ours
        ratio, full = result["ratio_to_neural_tangents"].get(what), result["full_seconds"].get(f"xla {what}")
        print(
            f"{name:8} {what:9}{''.join(cells)} {f'{ratio:.1f}' if ratio else '-':>7} "
            f"{f'{full:.1f} s' if full else '-':>10}",
            flush=True,
        )
    for key, why in result["failed"].items():
        print(f"{name:8} {key} failed: {why}", flush=True)
    for key, goal in GOALS.get(name, {}).items():
        print(f"{name:8} goal: {key} {goal:g}")


def main() -> None:
    """Measure, print the table, write the JSON after every network."""
    parser = options(__doc__, "kernels-gpu.json")
    parser.add_argument("--networks", nargs="+", default=["cnn-10", "mlp-5"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--tile", type=int, nargs=2, help="left and right images, instead of those of the family")
    arguments = parser.parse_args()
    if jax.default_backend() != "gpu":
        print(f"gpu.py: JAX sees no GPU here, it computes on {jax.default_backend()}; not measured", file=sys.stderr)
        sys.exit(2)
    device = jax.devices()[0].device_kind
    print(f"{device}; nanoseconds a pair; ratio and full: xla")
    print(f"{'':18}{'xla':>16}{'neural-tangents':>16} {'ratio':>7} {'full':>10}")
    written: dict[str, Any] = {"environment": {**environment(), "device": device}, "networks": {}}
    with kernel_scope():
        for name in arguments.networks:
            known = parse_name(name)
            if known is None or known[0] not in TILES:
                parser.error(f"tiles are known for mlp-x and cnn-x, not {name}")
            result = measure(name, tuple(arguments.tile or TILES[known[0]]), arguments.repeats)
            report(name, result)
            written["networks"][name] = result
            write(arguments.out, written)


if __name__ == "__main__":
    main()
