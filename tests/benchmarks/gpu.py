"""Check and time on one GPU what the package computes, in under eight minutes; prints lines and writes JSON.

    python tests/benchmarks/gpu.py [--networks cnn-10 mlp-5 cnn-3 resnet-18] [--sections ...] [--repeats 9] [--out FILE]

Sections, each with its share of the time:

    correctness  values, gradients and predictions in float32 against neural-tangents in float64 on the CPU
    kernels      our tiles against jitted neural-tangents on the same tiles, in turn; further tiles of ours alone
    gram         the build of a stored Gram matrix, with a sample of its tiles computed again in float64
    attacks      image-steps a second against stored training images

The JSON is written after every measurement, and what no time was left for is named in it. Times are medians for
float32, elapsed, with the images on the device; "full" extrapolates to the 1.25e9 distinct pairs of 50,000 images.
Exit status: 0, 1 if something failed or was not close enough to float64, 2 without a GPU.
"""

from __future__ import annotations

import faulthandler
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # workers of the build use the same GPU

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from advntk_dist.attacks.pgd import pgd
from advntk_dist.gram.build import build_gram
from advntk_dist.kernels.backend import KernelBackend, NeuralTangentsBackend
from advntk_dist.kernels.scope import kernel_scope
from advntk_dist.kernels.xla import XlaBackend
from advntk_dist.networks import network
from advntk_dist.operators.audit import audit_gram
from advntk_dist.predictor import KernelPredictor
from advntk_dist.spec import parse_name
from bench import machine, options, timed, write

W_STD, B_STD, IMAGE, CLASSES, RADIUS = 1.76, 0.18, (32, 32, 3), 10, 8 / 255
FULL = 1.25e9
"""Distinct pairs of 50,000 images."""
GOALS = {"cnn-10": {"full_seconds": 180.0, "ratio_to_neural_tangents": 10.0}}

SECONDS = {"correctness": 100.0, "kernels": 190.0, "gram": 80.0, "attacks": 60.0}
"""Seconds after which a section begins no further measurement."""
CUT = 475.0
"""Seconds after which the process ends wherever it is."""

CHECKED = {"mlp": (64, 256), "cnn": (8, 32), "resnet": (8, 16)}
"""Images that are compared with float64, and training images."""
TILES = {
    "mlp": [(4096, 4096), (1024, 1024), (128, 8192)],
    "cnn": [(128, 128), (64, 64), (1024, 64)],
    "resnet": [(64, 64), (1024, 64)],
}
"""Left and right images of tiles. neural-tangents computes the first one alone."""
STORED = {"mlp": (20_000, 2048), "cnn": (2_000, 512), "resnet": (500, 256)}
"""Images of a Gram matrix, and the edge of its tiles."""
TRAINING = {"mlp": 10_000, "cnn": 2_000, "resnet": 1_000}
"""Training images of the attacked predictor."""

COMPARED: dict[str, Callable[[KernelPredictor, NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    "ntk": lambda f, x, u: f.net.ntk(x, f.x_train),
    "nngp": lambda f, x, u: f.net.nngp(x, f.x_train),
    "ntk_vjp": lambda f, x, u: f.net.ntk_vjp(x, f.x_train, u @ f.coefficients.T)[1],
    "predict": lambda f, x, u: f.predict(x),
    "vjp": lambda f, x, u: f.vjp(x, u),
    "jacobian": lambda f, x, u: f.value_and_jacobian(x)[1],
}
"""Functions of a predictor, images (m, H, W, C) and a cotangent (m, k) that are held to float64."""
ATTACKS: dict[str, tuple[Callable[..., NDArray[Any]], int]] = {"pgd": (partial(pgd, radius=RADIUS, steps=10), 10)}
"""Attacks that are timed, as functions of a predictor, images and labels, and their steps."""
LIMIT = 1e-5
"""Largest norm of a difference from float64, relative to that of the float64 result."""

Measurements = Iterator[tuple[str, Callable[[], dict[str, Any]]]]


def family(name: str) -> str:
    """The family of a built-in network."""
    known = parse_name(name)
    assert known is not None
    return known[0]


def noise(seed: int, n: int) -> NDArray[np.float32]:
    """Images of independent pixels."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n, *IMAGE)).astype(np.float32)


def correctness(name: str) -> dict[str, Any]:
    """Relative norms of the differences from neural-tangents in float64 on the CPU, one a function."""
    images, n = CHECKED[family(name)]
    x, train, rng = noise(1, images), noise(2, n), np.random.default_rng(3)
    coefficients, cotangent = rng.standard_normal((n, CLASSES)), rng.standard_normal((images, CLASSES))

    def results(backend: Any, dtype: Any) -> dict[str, NDArray[Any]]:
        net = network(name, W_std=W_STD, b_std=B_STD, backend=backend)
        predictor = KernelPredictor(net, train.astype(dtype), coefficients, batch=images)
        return {key: f(predictor, x.astype(dtype), cotangent) for key, f in COMPARED.items()}

    ours = results("xla", np.float32)
    with jax.default_device(jax.devices("cpu")[0]):
        exact = results("neural-tangents", np.float64)
    differences = {key: float(np.linalg.norm(ours[key] - e) / np.linalg.norm(e)) for key, e in exact.items()}
    far = [key for key, difference in differences.items() if not difference <= LIMIT]
    return {"images": [images, n], "relative_difference": differences} | ({"too_far": far} if far else {})


def kernels(name: str, tile: tuple[int, int], repeats: int, rival: bool) -> dict[str, Any]:
    """Times a pair and in full of values and gradients; with ``rival``, of neural-tangents and ratios too."""
    known = parse_name(name)
    assert known is not None
    x1, x2 = (jnp.asarray(noise(seed, n)) for seed, n in enumerate(tile))
    weight = jnp.asarray(np.random.default_rng(0).standard_normal(tile), jnp.float32)
    backends: dict[str, KernelBackend] = {"xla": XlaBackend(*known, W_STD, B_STD)}
    if rival:
        net = network(name, W_std=W_STD, b_std=B_STD)
        backends["neural-tangents"] = NeuralTangentsBackend(net.kernel_fn)
    calls: dict[str, Callable[[], Any]] = {}
    results, failed, compile_seconds = {}, {}, {}
    with kernel_scope():
        for who, backend in backends.items():
            right = jax.jit(backend.prepare)(x2)
            value = partial(backend.tile, kind="ntk")
            programs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
                "value": (value, (x1, right)),
                "gradient": (backend.tile_vjp, (x1, right, weight)),
            }
            for what, (f, arguments) in programs.items():
                key = f"{who} {what}"
                start = time.perf_counter()
                try:
                    done = jax.jit(f).lower(*arguments).compile()
                    compile_seconds[key] = time.perf_counter() - start
                    results[key] = jax.block_until_ready(done(*arguments))
                except jax.errors.JaxRuntimeError as error:  # out of memory: the others are still worth timing
                    failed[key] = str(error).splitlines()[0]
                    continue
                calls[key] = lambda done=done, arguments=arguments: jax.block_until_ready(done(*arguments))  # type: ignore[misc]
        samples = {key: [wall for wall, _ in s] for key, s in timed(calls, repeats).items()}
    seconds = {key: statistics.median(s) / (tile[0] * tile[1]) for key, s in samples.items()}
    rivals = {what: [seconds.get(f"{who} {what}", 0.0) for who in backends] for what in ("value", "gradient")}
    return {
        "tile": list(tile),
        "repeats": repeats,
        "nanoseconds_a_pair": {key: 1e9 * s for key, s in seconds.items()},
        "spread": {key: (max(s) - min(s)) / statistics.median(s) for key, s in samples.items()},
        "full_seconds": {key: FULL * s for key, s in seconds.items()},
        "compile_seconds": compile_seconds,
        "ratio_to_neural_tangents": {what: t[1] / t[0] for what, t in rivals.items() if rival and all(t)},
    } | ({"failed": failed} if failed else {})


def gram(name: str) -> dict[str, Any]:
    """Seconds of a build, of which those from its first tile on, and the largest difference of tiles from float64."""
    n, tile = STORED[family(name)]
    x = np.random.default_rng(4).integers(0, 256, (n, *IMAGE), dtype=np.uint8)
    events: list[dict[str, Any]] = []
    times: list[float] = []
    with tempfile.TemporaryDirectory(prefix="gpu-gram") as folder:
        started = time.perf_counter()
        store = build_gram(
            network(name, W_std=W_STD, b_std=B_STD), x, store=str(Path(folder, "gram.zarr")), tile=tile,
            on_plan=lambda plan: times.append(time.perf_counter()), on_event=events.append,
        )  # fmt: skip
        ended = time.perf_counter()
        audit = audit_gram(store, x, tiles=2, passes=2)
    return {
        "n": n,
        "tile": tile,
        "seconds": ended - started,
        "tile_seconds": ended - times[0],
        "nanoseconds_a_pair": 1e9 * (ended - times[0]) / (n * (n + 1) / 2),
        "workers": [e["platform"] for e in events if e["event"] == "worker_ready"],
        "largest_difference_from_float64": audit.largest_difference,
    } | ({} if audit.within_limit else {"too_far": ["tiles"]})


def attack(name: str, attack_name: str, repeats: int) -> dict[str, Any]:
    """Image-steps a second of an attack on one batch, and the seconds of its first call, which compiles."""
    n, rng = TRAINING[family(name)], np.random.default_rng(5)
    y = rng.integers(0, CLASSES, n)
    # Coefficients of a short training at one common time, where attacks have real gradients to follow.
    predictor = KernelPredictor(network(name), noise(6, n), np.eye(CLASSES)[y] - 1 / CLASSES)
    x, found = noise(7, predictor.batch), []
    function, steps = ATTACKS[attack_name]

    def call() -> None:
        found.append(function(predictor, x, y[: len(x)]))

    started = time.perf_counter()
    call()
    first = time.perf_counter() - started
    seconds = statistics.median(wall for wall, _ in timed({"attack": call}, repeats)["attack"])
    return {
        "n": n,
        "batch": len(x),
        "first_seconds": first,
        "seconds": seconds,
        "image_steps_a_second": len(x) * steps / seconds,
        "largest_change": float(np.abs(found[-1] - x).max()),
    }


def measurements(section: str, networks: list[str], repeats: int) -> Measurements:
    """The measurements of a section, by name."""
    for name in networks:
        if section == "correctness":
            yield name, partial(correctness, name)
        elif section == "kernels":
            for place, tile in enumerate(TILES[family(name)]):
                yield f"{name} {tile[0]} x {tile[1]}", partial(kernels, name, tile, repeats, rival=place == 0)
        elif section == "gram":
            yield name, partial(gram, name)
        else:
            for attack_name in ATTACKS:
                yield f"{name} {attack_name}", partial(attack, name, attack_name, repeats)


def main() -> None:
    """Measure section by section, print a line and write the JSON after every measurement."""
    parser = options(__doc__, "gpu.json")
    parser.add_argument("--networks", nargs="+", default=["cnn-10", "mlp-5", "cnn-3", "resnet-18"])
    parser.add_argument("--sections", nargs="+", choices=SECONDS, default=list(SECONDS))
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    if jax.default_backend() != "gpu":
        print(f"gpu.py: JAX sees no GPU here, it computes on {jax.default_backend()}; not measured", file=sys.stderr)
        sys.exit(2)
    if unknown := [name for name in arguments.networks if parse_name(name) is None]:
        parser.error(f"not a built-in network: {', '.join(unknown)}")
    faulthandler.dump_traceback_later(CUT, exit=True)
    there = machine(device=jax.devices()[0].device_kind)
    written: dict[str, Any] = {"environment": there, "goals": GOALS, "not_measured": []}
    failed = False
    for section in arguments.sections:
        end = time.monotonic() + SECONDS[section]
        for key, measure in measurements(section, arguments.networks, arguments.repeats):
            if time.monotonic() > end:
                written["not_measured"].append(f"{section}: {key}")
                continue
            started = time.monotonic()
            try:
                result = measure()
            except Exception as error:  # the GPU is lent for minutes: what comes after it is still measured
                traceback.print_exc()
                result = {"error": f"{type(error).__name__}: {error}"}
            result["measured_in_seconds"] = round(time.monotonic() - started, 1)
            failed = failed or not {"error", "failed", "too_far"}.isdisjoint(result)
            written.setdefault(section, {})[key] = result
            print(section, key, json.dumps(result), flush=True)
            write(arguments.out, written)
    write(arguments.out, written)
    faulthandler.cancel_dump_traceback_later()
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
