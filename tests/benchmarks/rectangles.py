"""Measure requests of m x n images as users make them, by net.ntk and net.ntk_vjp on NumPy arrays; writes JSON.

    python tests/benchmarks/rectangles.py [--networks mlp-5 cnn-3 cnn-10] [--repeats 7] [--out FILE]

"rectangle" is one shape of a network against jitted neural-tangents on the same arrays, compiled with the same options;
ratios are above 1 where ours is faster. "to_square" is the price of a pair over that of a pair of a square, for several
shapes, each measured in turn with the square. Every figure is a median of calls made in turn; "wall" is elapsed time,
"cpu" the processor time of all threads, which load disturbs less.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from advntk_dist.kernels.backend import NeuralTangentsBackend
from advntk_dist.kernels.scope import compiler_options, kernel_scope
from advntk_dist.networks import network
from bench import CLOCKS, machine, medians, options, write
from kernels import B_STD, IMAGE, W_STD

RECTANGLES = {"mlp-5": ((128, 8192), (1.7, 1.3)), "cnn-3": ((16, 128), (7.0, 5.0)), "cnn-10": ((16, 128), (8.0, 5.0))}
"""Shape of a request, and ratios to neural-tangents that were asked for on a CPU with AVX-512: value, gradient."""
SHAPES = {
    "mlp-5": [(1025, 1025), (333, 3333), (256, 4096), (128, 8192), (8192, 128), (32, 8192), (1, 20_000)],
    "cnn-3": [(333, 48), (128, 128), (16, 1024), (1025, 16), (3, 1024), (1, 1024), (1024, 1)],
}
SQUARES = {"mlp-5": 1024, "cnn-3": 64}
"""Edges of the squares; those of convolutions are one block of a larger one."""


def images(rng: np.random.Generator, n: int) -> Any:
    """Random images (n, 32, 32, 3) in float32."""
    return rng.random((n, *IMAGE), dtype=np.float32) - np.float32(0.5)


def rectangle(name: str, repeats: int) -> dict[str, Any]:
    """Seconds of the public functions and of jitted neural-tangents on NumPy arrays of one shape, and ratios."""
    (m, n), goals = RECTANGLES[name]
    rng, net = np.random.default_rng(1), network(name, W_std=W_STD, b_std=B_STD)
    a, b, w = images(rng, m), images(rng, n), rng.standard_normal((m, n)).astype(np.float32)
    theirs = NeuralTangentsBackend(net.kernel_fn)
    value, vjp = (
        jax.jit(f, compiler_options=compiler_options())
        for f in (lambda x, y: theirs.tile(x, y, "ntk"), theirs.tile_vjp)
    )
    calls: dict[str, Callable[[], Any]] = {
        "ours value": lambda: net.ntk(a, b),
        "theirs value": lambda: jax.tree.map(np.asarray, value(a, b)),
        "ours gradient": lambda: net.ntk_vjp(a, b, w),
        "theirs gradient": lambda: jax.tree.map(np.asarray, vjp(a, b, w)),
    }
    for call in calls.values():
        call()
    times = medians(calls, repeats)
    return {
        "shape": [m, n],
        "seconds": times,
        "ratio": {
            what: {clock: times[f"theirs {what}"][clock] / times[f"ours {what}"][clock] for clock in CLOCKS}
            | {"goal": goal}
            for what, goal in zip(("value", "gradient"), goals, strict=True)
        },
    }


def to_square(name: str, repeats: int) -> list[dict[str, Any]]:
    """Price of a pair in requests of several shapes, over that in a square measured in turn with each."""
    rng, net, edge = np.random.default_rng(2), network(name, W_std=W_STD, b_std=B_STD), SQUARES[name]
    most = max(max(shape) for shape in SHAPES[name])
    left, right, found = images(rng, most), images(rng, most), []
    for m, n in SHAPES[name]:
        calls: dict[str, Callable[[], Any]] = {}
        for key, rows, columns in (("square", edge, edge), ("shape", m, n)):
            w = rng.standard_normal((rows, columns)).astype(np.float32)
            a, b = left[:rows], right[:columns]
            calls[f"{key} value"] = partial(net.ntk, a, b)
            calls[f"{key} gradient"] = partial(net.ntk_vjp, a, b, w)
        for call in calls.values():
            call()
        times = medians(calls, repeats)
        row: dict[str, Any] = {"shape": [m, n]}
        for what in ("value", "gradient"):
            shape, square = times[f"shape {what}"], times[f"square {what}"]
            row[what] = {clock: shape[clock] / (m * n) / (square[clock] / edge**2) for clock in CLOCKS}
        found.append(row)
    return found


def main() -> None:
    """Measure, print, write the JSON."""
    parser = options(__doc__, f"rectangles-{jax.default_backend()}.json")
    parser.add_argument("--networks", nargs="+", default=list(RECTANGLES))
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"environment": machine(), "repeats": arguments.repeats, "networks": {}}
    with kernel_scope():
        for name in arguments.networks:
            row: dict[str, Any] = {"rectangle": rectangle(name, arguments.repeats)}
            report["networks"][name] = row
            print(name, row["rectangle"]["shape"], row["rectangle"]["ratio"], flush=True)
            if name in SHAPES:
                row["to_square"] = to_square(name, arguments.repeats)
                print(*row["to_square"], sep="\n", flush=True)
            report["environment"]["load_at_the_end"] = machine()["load"]
            write(arguments.out, report)


if __name__ == "__main__":
    main()
