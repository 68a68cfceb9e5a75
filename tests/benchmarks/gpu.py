"""Measure pallas, xla and jitted neural-tangents on the same tiles of one GPU; prints a table and writes JSON.

    python tests/benchmarks/gpu.py [--networks cnn-10 mlp-5] [--repeats 9] [--peak TFLOPS] [--out FILE]

The three are timed in turn, and every figure is a median. Times are for float32, elapsed, with the images on the
device and the right-hand images prepared; "full" extrapolates to the 1.25e9 distinct pairs of 50,000 images. The
share of the peak is that of the arithmetic pallas does (one operation an elementwise primitive, two a multiplication
and addition of a matrix product), against the device's float32 rate, which counts a fused multiply-add as two.
Without a GPU it says so and exits with status 2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advntk_dist.environment import environment
from advntk_dist.kernels.backend import KernelBackend
from advntk_dist.kernels.pallas import PallasBackend, launch
from advntk_dist.kernels.pallas.layer import adjoint, geometry, relu
from advntk_dist.kernels.reference import NeuralTangentsBackend
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.kernels.xla import XlaBackend
from advntk_dist.kernels.xla.relu import Pairs
from advntk_dist.networks import network
from advntk_dist.spec import parse_name

W_STD, B_STD = 1.76, 0.18
IMAGE = (32, 32, 3)
TILES = {"mlp": (4096, 4096), "cnn": (128, 128)}
FULL = 1.25e9
"""Distinct pairs of 50,000 images."""
GOALS = {"cnn-10": {"full_seconds": 180.0, "ratio_to_neural_tangents": 10.0}}
PEAKS = {
    "H200": 66.9,
    "H100 PCIe": 51.2,
    "H100": 66.9,
    "A100": 19.5,
    "L40S": 91.6,
    "L4": 30.3,
    "A10": 31.2,
    "V100": 15.7,
    "T4": 8.1,
    "RTX 4090": 82.6,
}
"""Vendor's float32 rates without tensor cores, in 1e12 operations a second; the first name that fits counts."""

_FREE = {"broadcast_in_dim", "reshape", "squeeze", "convert_element_type"}
_BOX_SUM = 4


def operations(f: Callable[..., Any], *arguments: jax.Array) -> float:
    """Arithmetic operations an element of the first argument, from the jaxpr: one a primitive and element."""

    def count(jaxpr: Any) -> Iterator[int]:
        for equation in jaxpr.eqns:
            inner = [p for p in equation.params.values() if hasattr(p, "jaxpr") or hasattr(p, "eqns")]
            for p in inner:
                yield from count(getattr(p, "jaxpr", p))
            if not inner and equation.primitive.name not in _FREE:
                yield max(v.aval.size for v in equation.outvars)

    return sum(count(jax.make_jaxpr(f)(*arguments).jaxpr)) / arguments[0].size


def layer_operations(per_pixel: bool) -> dict[str, float]:
    """Operations a ReLU and pair (and pixel): forward alone, and with the way back."""
    a = jnp.ones((8, 8), jnp.float32)
    linear = 2 * (_BOX_SUM * per_pixel + 1)

    def forward(e: jax.Array, m: jax.Array, n: jax.Array, o: jax.Array) -> Any:
        above = relu(geometry(e, n, o, signed=False), Pairs(e, m))
        return above.distance, above.rest

    def back(e: jax.Array, m: jax.Array, n: jax.Array, o: jax.Array, y: jax.Array, z: jax.Array) -> Any:
        return adjoint(geometry(e, n, o, signed=False), Pairs(e, m), n, o, y, z)

    value = operations(forward, a, a, a, a) + linear
    return {"value": value, "gradient": value + operations(back, a, a, a, a, a, a) + 1 + linear}


def operations_a_pair(family: str, depth: int) -> dict[str, float]:
    """Operations that pallas does for a pair."""
    pixels, size = IMAGE[0] * IMAGE[1], IMAGE[0] * IMAGE[1] * IMAGE[2]
    layers = layer_operations(family == "cnn")
    if family == "cnn":
        return {what: each * pixels * depth for what, each in layers.items()}
    products = {"value": 2 * size, "gradient": 4 * size}
    return {what: each * (depth - 1) + products[what] for what, each in layers.items()}


def measured(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of calls made in turn; each one has run before."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            samples[name].append(time.perf_counter() - start)
    return samples


def measure(name: str, tile: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Times of one network, a pair and in full, and the differences of the three from each other."""
    known = parse_name(name)
    assert known is not None
    rng = np.random.default_rng(0)
    x1, x2 = (jnp.asarray(rng.uniform(-0.5, 0.5, (n, *IMAGE)), jnp.float32) for n in tile)
    weight = jnp.asarray(rng.standard_normal(tile), jnp.float32)
    backends: dict[str, KernelBackend] = {
        "pallas": PallasBackend(*known, W_STD, B_STD),
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
    samples = measured(calls, repeats)
    seconds = {key: statistics.median(s) / (tile[0] * tile[1]) for key, s in samples.items()}
    return {
        "tile": list(tile),
        "repeats": repeats,
        "nanoseconds_a_pair": {key: 1e9 * s for key, s in seconds.items()},
        "spread": {key: (max(s) - min(s)) / statistics.median(s) for key, s in samples.items()},
        "full_seconds": {key: FULL * s for key, s in seconds.items()},
        "compile_seconds": compile_seconds,
        "failed": failed,
        "relative_difference_from_pallas": differences(results),
    }


def differences(results: dict[str, Any]) -> dict[str, float]:
    """Largest difference of the values, and norm of that of the gradients, relative to pallas; all in float32."""
    out = {}
    for who in ("xla", "neural-tangents"):
        if {"pallas value", f"{who} value"} <= results.keys():
            mine, other = results["pallas value"], results[f"{who} value"]
            out[f"{who} value"] = float(jnp.abs(mine - other).max() / jnp.abs(other).max())
        if {"pallas gradient", f"{who} gradient"} <= results.keys():
            mine, other = results["pallas gradient"][1], results[f"{who} gradient"][1]
            out[f"{who} gradient"] = float(jnp.linalg.norm(mine - other) / jnp.linalg.norm(other))
    return out


def peak_of(device: str) -> float | None:
    """The float32 rate of a device by its name, in 1e12 operations a second, if it is known."""
    return next((rate for name, rate in PEAKS.items() if name in device), None)


def report(name: str, result: dict[str, Any], peak: float | None) -> None:
    """Add operations, share of the peak and ratios to ``result``, and print its lines."""
    known = parse_name(name)
    assert known is not None
    counts = operations_a_pair(*known)
    result["operations_a_pair"] = counts
    result["ratio_to_neural_tangents"], result["share_of_peak"] = {}, {}
    times = result["nanoseconds_a_pair"]
    for what, count in counts.items():
        cells = []
        for who in ("pallas", "xla", "neural-tangents"):
            time_ = times.get(f"{who} {what}")
            cells.append(f"{time_:16.3f}" if time_ else f"{'failed':>16}")
        ours, theirs = times.get(f"pallas {what}"), times.get(f"neural-tangents {what}")
        if ours and theirs:
            result["ratio_to_neural_tangents"][what] = theirs / ours
        if ours and peak:
            result["share_of_peak"][what] = count / (ours * 1e-9) / (peak * 1e12)
        ratio, share = (result[key].get(what) for key in ("ratio_to_neural_tangents", "share_of_peak"))
        full = result["full_seconds"].get(f"pallas {what}")
        print(
            f"{name:8} {what:9}{''.join(cells)} {f'{ratio:.1f}' if ratio else '-':>7} "
            f"{f'{full:.1f} s' if full else '-':>10} {f'{share:.0%}' if share else '-':>7}",
            flush=True,
        )
    for key, why in result["failed"].items():
        print(f"{name:8} {key} failed: {why}", flush=True)
    for key, goal in GOALS.get(name, {}).items():
        print(f"{name:8} goal: {key} {goal:g}")


def main() -> None:
    """Measure, print the table, write the JSON after every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["cnn-10", "mlp-5"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--peak", type=float, help="float32 rate of the device in 1e12 operations a second")
    parser.add_argument("--tile", type=int, nargs=2, help="left and right images, instead of those of the family")
    parser.add_argument("--elements-a-thread", type=int, default=launch.ELEMENTS_A_THREAD, help="of pallas, to tune it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kernels-gpu.json")
    arguments = parser.parse_args()
    if jax.default_backend() != "gpu":
        print(f"gpu.py: JAX sees no GPU here, it computes on {jax.default_backend()}; not measured", file=sys.stderr)
        sys.exit(2)
    launch.ELEMENTS_A_THREAD = arguments.elements_a_thread
    device = jax.devices()[0].device_kind
    peak = arguments.peak or peak_of(device)
    print(f"{device}, float32 peak {peak or 'unknown (--peak)'} TFLOPS; nanoseconds a pair; ratio, full, share: pallas")
    print(f"{'':18}{'pallas':>16}{'xla':>16}{'neural-tangents':>16} {'ratio':>7} {'full':>10} {'peak':>7}")
    written: dict[str, Any] = {
        "environment": {**environment(), "device": device, "peak_tflops": peak},
        "elements_a_thread": arguments.elements_a_thread,
        "networks": {},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with kernel_scope():
        for name in arguments.networks:
            known = parse_name(name)
            if known is None or known[0] not in TILES:
                parser.error(f"pallas computes mlp-x and cnn-x, not {name}")
            result = measure(name, tuple(arguments.tile or TILES[known[0]]), arguments.repeats)
            report(name, result, peak)
            written["networks"][name] = result
            arguments.out.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
