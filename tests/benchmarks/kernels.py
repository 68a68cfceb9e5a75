"""Measure the xla backend against jitted neural-tangents on the same tiles; prints a table and writes JSON.

    python tests/benchmarks/kernels.py [--networks mlp-5 cnn-3 cnn-10 resnet-18] [--repeats 7] [--out FILE]

Ours, neural-tangents and (for MLPs) the bare matrix products are timed in turn, so that other load on the machine
falls on all of them alike, and compiled with the same options; every figure is a median. "wall" is elapsed time,
"cpu" the processor time of all threads, which load disturbs less. Ratios are above 1 where ours is faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advntk_dist.kernels.backend import KernelBackend, NeuralTangentsBackend
from advntk_dist.kernels.scope import compiler_options, kernel_scope
from advntk_dist.kernels.xla import XlaBackend
from advntk_dist.kernels.xla.checkpoint_buffer import inner_sum
from advntk_dist.kernels.xla.relu import Norms, PairState, adjoint, after
from advntk_dist.networks import network
from advntk_dist.spec import RESNET_STAGES, parse_name
from bench import CLOCKS, machine, medians, options, write

W_STD, B_STD = 1.76, 0.18
IMAGE = (32, 32, 3)
TILES = {"mlp": (1024, 1024), "cnn": (64, 32), "resnet": (64, 16)}
GOALS = {"mlp-5": (1.9, 2.0), "cnn-3": (4.0, 3.0), "cnn-10": (7.0, 5.0), "resnet-18": (4.0, 3.0)}
"""Ratios to neural-tangents that were asked for: value, gradient."""

_FREE = {"broadcast_in_dim", "reshape", "slice", "pad", "squeeze", "optimization_barrier", "convert_element_type"}


def compiled(f: Callable[..., Any], *arguments: Any) -> tuple[Callable[[], Any], float]:
    """A call of the compiled function, already run once, and the seconds that compiling took."""
    start = time.perf_counter()
    done = jax.jit(f, compiler_options=compiler_options()).lower(*arguments).compile()
    seconds = time.perf_counter() - start

    def call() -> Any:
        return jax.block_until_ready(done(*arguments))

    call()
    return call, seconds


def operations(f: Callable[..., Any], *arguments: jax.Array) -> int:
    """Arithmetic operations of an elementwise function, from its jaxpr: one a primitive and element."""

    def count(jaxpr: Any) -> Iterator[int]:
        for equation in jaxpr.eqns:
            inner = [p for p in equation.params.values() if hasattr(p, "jaxpr") or hasattr(p, "eqns")]
            for p in inner:
                yield from count(getattr(p, "jaxpr", p))
            if not inner and equation.primitive.name not in _FREE:
                yield max(v.aval.size for v in equation.outvars)

    return sum(count(jax.make_jaxpr(f)(*arguments).jaxpr))


def layer_counts() -> dict[str, float]:
    """Operations for each pair, pixel and ReLU in float32, forward and back, with the 3x3 sums before it."""
    a = jnp.ones((64, 64, 16), jnp.float32)
    bordered, norms = jnp.ones((66, 66, 16), jnp.float32), Norms(a, a)
    sums = 2 * (operations(inner_sum, bordered) + a.size)
    forward = operations(lambda e, m: after(PairState(e, m), norms, norms, signed=False), a, a) + sums
    back = operations(lambda e, m, y, z: adjoint(PairState(e, m), norms, norms, y, z, signed=False), a, a, a, a) + sums
    return {"value": forward / a.size, "gradient": (forward + back) / a.size}


def relus(family: str, depth: int) -> int:
    """ReLUs of a network."""
    return {"mlp": depth - 1, "cnn": depth}.get(family) or 2 * sum(RESNET_STAGES[depth]) + 1


def matrix_product_rate() -> float:
    """Floating-point operations a second of processor time of a float32 matrix product: what a core can do."""
    n = 2048
    a = jnp.ones((n, n), jnp.float32)
    call, _ = compiled(lambda x, y: x @ y, a, a)
    return 2 * n**3 / medians({"product": call}, 15)["product"]["cpu"]


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Times a pair of one network, in microseconds, and what they mean."""
    known = parse_name(name)
    assert known is not None
    family, depth = known
    rows, columns = TILES[family]
    rng = np.random.default_rng(0)
    x1, x2 = (jnp.asarray(rng.uniform(-0.5, 0.5, (n, *IMAGE)), jnp.float32) for n in (rows, columns))
    weight = jnp.asarray(rng.standard_normal((rows, columns)), jnp.float32)
    ours: KernelBackend = XlaBackend(family, depth, W_STD, B_STD)
    theirs: KernelBackend = NeuralTangentsBackend(network(name, W_std=W_STD, b_std=B_STD).kernel_fn)
    right = jax.jit(ours.prepare)(x2)
    calls, compile_seconds = {}, {}

    def add(key: str, f: Callable[..., Any], *arguments: Any) -> None:
        calls[key], compile_seconds[key] = compiled(f, *arguments)

    add("ours value", lambda a, p: ours.tile(a, p, "ntk"), x1, right)
    add("theirs value", lambda a, b: theirs.tile(a, b, "ntk"), x1, x2)
    add("ours gradient", ours.tile_vjp, x1, right, weight)
    add("theirs gradient", theirs.tile_vjp, x1, x2, weight)
    if family == "mlp":
        flat1, flat2 = x1.reshape(rows, -1), x2.reshape(columns, -1)
        add("products value", lambda a, b: a @ b.T, flat1, flat2)
        add("products gradient", lambda a, b, w: (a @ b.T, w @ b), flat1, flat2, weight)
    times = medians(calls, repeats)
    got, expected = calls["ours gradient"](), calls["theirs gradient"]()
    per_pair = 1e6 / (rows * columns)
    return {
        "tile": [rows, columns],
        "repeats": repeats,
        **{f"{clock}_us": {key: t[clock] * per_pair for key, t in times.items()} for clock in CLOCKS},
        "compile_s": compile_seconds,
        "ratio": {
            what: {
                **{clock: times[f"theirs {what}"][clock] / times[f"ours {what}"][clock] for clock in CLOCKS},
                "goal": goal,
            }
            for what, goal in zip(("value", "gradient"), GOALS.get(name, (None, None)), strict=True)
        },
        "largest_relative_difference_of_float32": {
            "value": float(jnp.max(jnp.abs(got[0] / expected[0] - 1))),
            "gradient": float(jnp.linalg.norm(got[1] - expected[1]) / jnp.linalg.norm(expected[1])),
        },
    }


def limits(name: str, result: dict[str, Any], rate: float, counts: dict[str, float]) -> dict[str, Any]:
    """Operations and bytes a pair, and the share of the machine's limit that ours reaches (processor time)."""
    known = parse_name(name)
    assert known is not None
    family, depth = known
    pixels, size = IMAGE[0] * IMAGE[1], IMAGE[0] * IMAGE[1] * IMAGE[2]
    out: dict[str, Any] = {}
    for what, products in (("value", 1), ("gradient", 2)):
        seconds = result["cpu_us"][f"ours {what}"] / 1e6
        if family == "mlp":
            floor = result["cpu_us"][f"products {what}"]
            out[what] = {"operations": 2 * size * products, "share": floor / result["cpu_us"][f"ours {what}"]}
        else:
            done = counts[what] * pixels * relus(family, depth)
            out[what] = {"operations": done, "share": done / seconds / rate}
        rows, columns = result["tile"]
        out[what]["compulsory_bytes"] = 4 * (1 + size / rows + size / columns)
    return out


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = options(__doc__, f"kernels-{jax.default_backend()}.json")
    parser.add_argument("--networks", nargs="+", default=list(GOALS))
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    print(
        f"{'':10} {'':9} {'ours':>9} {'theirs':>9} {'ratio':>6} {'(cpu)':>6} {'goal':>5} {'limit':>6}  us a pair, wall"
    )
    results: dict[str, Any] = {}
    with kernel_scope():
        rate, counts = matrix_product_rate(), layer_counts()
        for name in arguments.networks:
            result = measure(name, arguments.repeats)
            result["limits"] = limits(name, result, rate, counts)
            results[name] = result
            for what, ratio in result["ratio"].items():
                ours, theirs = (result["wall_us"][f"{who} {what}"] for who in ("ours", "theirs"))
                share = result["limits"][what]["share"]
                print(
                    f"{name:10} {what:9} {ours:9.3f} {theirs:9.3f} {ratio['wall']:6.1f} {ratio['cpu']:6.1f} "
                    f"{ratio['goal'] or 0:5.1f} {share:6.0%}",
                    flush=True,
                )
    report = {
        "environment": machine(device=jax.devices()[0].device_kind),
        "matrix_product_flops_a_core": rate,
        "operations_a_pixel_and_relu": counts,
        "networks": results,
    }
    write(arguments.out, report)


if __name__ == "__main__":
    main()
