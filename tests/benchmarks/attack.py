"""Measure attack throughput, image-steps a second; prints a table and writes JSON.

    python tests/benchmarks/attack.py --data FOLDER [--networks mlp-5 cnn-3] [--n 10000] [--steps 2] [--repeats 3]
                                      [--batch B] [--out FILE]

FOLDER holds CIFAR-10; without it the images are noise, which costs the same. The rivals attack the same batch with the
same coefficients, in turn, so that other load on the machine falls on all of them alike:

    after            PGD on the device, all steps of a batch in one program (what ``pgd`` does with a kernel predictor)
    before           the same kernels, asked for values and for gradients in two calls a step
    neural-tangents  those two calls by neural-tangents

Every figure is a median over the repeats, after one run that compiles. "cpu" is the processor time of all threads,
which load disturbs less than elapsed time; "gain" is that of "after" over the row. The products row is the limit of
MLPs: the two matrix products of a step alone, so its gain is the share of the limit that "after" reaches.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from advntk_dist import pgd
from advntk_dist.data import load_dataset, one_hot
from advntk_dist.kernels.scope import compiler_options, kernel_scope
from advntk_dist.networks import network
from advntk_dist.predictor import KernelPredictor
from bench import CLOCKS, machine, medians, options, write

BATCH = {"mlp": 512, "cnn": 32, "resnet": 16}
RADIUS, CLASSES = 8 / 255, 10


class StepByStep:
    """A predictor of which an attack sees values and gradients only."""

    def __init__(self, predictor: KernelPredictor) -> None:
        self._predictor = predictor

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        """Values."""
        return self._predictor.predict(x)

    def vjp(self, x: ArrayLike, cotangent: ArrayLike) -> NDArray[Any]:
        """Gradients."""
        return self._predictor.vjp(x, cotangent)


def images(
    folder: str | None, n: int, batch: int
) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.uint8], NDArray[Any]]:
    """Training images with labels, and others to attack."""
    if folder is not None:
        data = load_dataset("cifar10", folder)
        rows = np.random.default_rng(0).permutation(len(data))[: n + batch]
        x, y = data.x[rows], data.y[rows]
    else:
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 256, (n + batch, 32, 32, 3), dtype=np.uint8), rng.integers(0, CLASSES, n + batch)
    return x[:n], y[:n], x[n:], y[n:]


def products(x_train: NDArray[Any], x: NDArray[Any]) -> Callable[[], Any]:
    """The matrix products of one step: all inner products, and a combination of the training images for each image."""
    with kernel_scope():
        right, left = (jnp.asarray(a.reshape(len(a), -1), jnp.float32) for a in (x_train, x))
        both = jax.jit(lambda r, a, k: (r @ a.T, k.T @ r), compiler_options=compiler_options())
        weight = jnp.ones((len(right), len(left)), jnp.float32)
        return lambda: jax.block_until_ready(both(right, left, weight))


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Throughputs of one network."""
    batch = arguments.batch or BATCH[name.partition("-")[0]]
    x_train, y_train, x, y = images(arguments.data, arguments.n, batch)
    # Coefficients of a short training at one common time, where attacks have real gradients to follow.
    coefficients = one_hot(y_train, CLASSES) - 1 / CLASSES
    ours = KernelPredictor(network(name), x_train, coefficients, batch=batch)
    theirs = KernelPredictor(network(name, backend="neural-tangents"), x_train, coefficients, batch=batch)
    found: dict[str, NDArray[Any]] = {}

    def attack(key: str, predictor: Any) -> Callable[[], None]:
        def call() -> None:
            found[key] = pgd(predictor, x, y, radius=RADIUS, steps=arguments.steps, loss="squared-error")

        return call

    calls: dict[str, Callable[[], Any]] = {
        "after": attack("after", ours),
        "before": attack("before", StepByStep(ours)),
        "neural-tangents": attack("neural-tangents", StepByStep(theirs)),
    }
    if name.startswith("mlp"):
        calls["products"] = products(x_train, x)
    for call in calls.values():
        call()  # compiles
    times = medians(calls, arguments.repeats)
    steps = {key: 1 if key == "products" else arguments.steps for key in calls}
    rate = {key: {clock: batch * steps[key] / t[clock] for clock in CLOCKS} for key, t in times.items()}
    return {
        "backend": ours.net.backend.name,
        "n": arguments.n,
        "batch": batch,
        "steps": arguments.steps,
        "repeats": arguments.repeats,
        "image_steps_a_second": rate,
        "gain": {
            key: {clock: rate["after"][clock] / rate[key][clock] for clock in CLOCKS} for key in rate if key != "after"
        },
        "equal_pixels": {key: float((found[key] == found["after"]).mean()) for key in found if key != "after"},
    }


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = options(__doc__, f"attack-{jax.default_backend()}.json")
    parser.add_argument("--data", help="folder with CIFAR-10")
    parser.add_argument("--networks", nargs="+", default=["mlp-5", "cnn-3"])
    parser.add_argument("--n", type=int, default=10_000, help="training images")
    parser.add_argument(
        "--batch", type=int, help="attacked images; by default 512 for MLPs, 32 for CNNs, 16 for ResNets"
    )
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{'':10} {'':16} {'image-steps/s':>14} {'(cpu)':>10} {'gain':>6} {'(cpu)':>6}")
    results = {}
    for name in arguments.networks:
        results[name] = measure(name, arguments)
        for key, rate in results[name]["image_steps_a_second"].items():
            gain = results[name]["gain"].get(key, {"wall": 1.0, "cpu": 1.0})
            print(
                f"{name:10} {key:16} {rate['wall']:14.2f} {rate['cpu']:10.2f} {gain['wall']:6.2f} {gain['cpu']:6.2f}",
                flush=True,
            )
    report = {
        "environment": machine(device=jax.devices()[0].device_kind),
        "images": "CIFAR-10" if arguments.data else "noise",
        "networks": results,
    }
    write(arguments.out, report)


if __name__ == "__main__":
    main()
