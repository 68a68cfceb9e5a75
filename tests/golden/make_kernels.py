"""Make kernels.npz: kernels, input gradients and an ensemble as neural-tangents computes them, in float64.

The layers are written out here, without the package's networks, and JAX differentiates the kernel. Images and weights
are rounded to float32, so that one value serves both dtypes. ``python -m tests.golden.make_kernels`` writes the
file again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from advntk_dist.spec import Family

Array = NDArray[Any]
Values = dict[str, Array]

FILE = Path(__file__).with_name("kernels.npz")
LEFT, RIGHT = 5, 6


class Case(NamedTuple):
    """A ReLU network and the shape of its images."""

    family: Family
    depth: int
    W_std: float
    b_std: float
    shape: tuple[int, int, int]

    @property
    def name(self) -> str:
        """What its values are filed under."""
        return f"{self.family}-{self.depth} {'x'.join(map(str, self.shape))}"


CASES = [
    Case("mlp", 3, 0.7, 0.4, (3, 4, 2)),
    Case("cnn", 1, 1.76, 0.0, (3, 5, 1)),
    Case("cnn", 2, 0.6, 0.5, (1, 8, 5)),
    Case("cnn", 4, 1.76, 0.18, (5, 4, 3)),
    Case("resnet", 18, 1.2, 0.18, (4, 4, 3)),
]
"""For the xla backend; values of these at degenerate images, too."""
MLPS = [
    Case("mlp", 2, 1.0, 0.0, (2, 3, 1)),
    Case("mlp", 3, 0.6, 0.5, (4, 4, 3)),
    Case("mlp", 5, 1.76, 0.18, (8, 8, 1)),
    Case("mlp", 10, 1.41, 0.05, (3, 5, 3)),
]
"""MLPs of other depths, for the xla backend, too."""
PARALLEL = Case("cnn", 3, 1.3, 0.0, (4, 4, 1))
LEVELS = np.array([0.1, 0.23, 0.37, 0.5, -0.41, -0.5])
"""Constant images for a network without bias: all patches are parallel or opposite."""
NETWORKS = [
    ("mlp-4", "relu"),
    ("mlp-4", "gelu"),
    ("mlp-4", "erf"),
    ("mlp-4", "sigmoid"),
    ("cnn-2", "relu"),
    ("cnn-2", "gelu"),
    ("resnet-18", "relu"),
]
"""Networks and activations, at W_std 1.76 and b_std 0.18."""


LAW_TIMES = (0.0, 0.3, 20.0, np.inf)
"""Times at which the mean and covariance of an infinite ensemble are stored."""


def kernel_fn(family: str, depth: int, W_std: float, b_std: float, activation: str = "relu") -> Any:
    """neural-tangents' analytic kernel of a network, layer by layer."""
    from advntk_dist.neural_tangents_adapter import stax

    act = {"relu": stax.Relu, "gelu": stax.Gelu, "erf": stax.Erf, "sigmoid": stax.Sigmoid_like}[activation]
    dense = partial(stax.Dense, 1, W_std=W_std, b_std=b_std)
    conv = partial(stax.Conv, 1, (3, 3), padding="SAME", W_std=W_std, b_std=b_std)
    if family == "mlp":
        layers = [stax.Flatten(), *[layer() for _ in range(depth - 1) for layer in (dense, act)]]
    elif family == "cnn":
        layers = [*[layer() for _ in range(depth) for layer in (conv, act)], stax.Flatten()]
    else:
        assert (family, depth) == ("resnet", 18)
        conv = partial(conv, b_std=None)
        layers = [conv()]
        for shortcut in [conv, stax.Identity] * 4:
            main = stax.serial(act(), conv(), act(), conv())
            layers.append(stax.serial(stax.FanOut(2), stax.parallel(main, shortcut()), stax.FanInSum()))
        layers += [act(), stax.Flatten()]
    return stax.serial(*layers, dense())[2]


def images(seed: int, n: int, shape: tuple[int, ...]) -> Array:
    """Noise, exact in float32."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n, *shape)).astype(np.float32)


def draw(case: Case, seed: int) -> Values:
    """Images on both sides, and a weight for each pair."""
    weight = np.random.default_rng(seed).standard_normal((LEFT, RIGHT)).astype(np.float32)
    return {"a": images(seed, LEFT, case.shape), "b": images(seed + 1, RIGHT, case.shape), "w": weight}


def degenerate(case: Case) -> Values:
    """Identical, duplicated, constant and all-zero images on both sides, and one beside another."""
    given = draw(case, 0)
    a, b = given["a"], given["b"]
    b[0] = a[0]
    a[1], b[1] = a[0], a[0]
    a[2], b[2] = 0.3, 0.3
    b[3] = 0.2
    a[3], b[4] = 0.0, 0.0
    if case.family == "mlp":
        a[4] = images(3, 1, case.shape)[0]  # its float32 matrix product cannot tell images that differ by 1e-4
    else:
        a[4] = b[5] + np.float32(1e-4) * images(2, 1, case.shape)[0]
    return given


def values_of(kernel: Callable[..., Any]) -> Callable[[Values], Values]:
    """Both kernels and the gradient of the weighted NTK, in float64, of what :func:`draw` gives."""
    value = jax.jit(kernel, static_argnums=2)
    slope = jax.jit(jax.grad(lambda a, b, w: (w * kernel(a, b, "ntk")).sum()))

    def values(given: Values) -> Values:
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            a, b, w = (given[k].astype(np.float64) for k in "abw")
            found = {"ntk": value(a, b, "ntk"), "nngp": value(a, b, "nngp"), "gradient": slope(a, b, w)}
        return {k: np.asarray(v) for k, v in found.items()}

    return values


def reference() -> Iterator[tuple[str, Values]]:
    """All of kernels.npz: names of groups, and their arrays."""
    for case in (*CASES, *MLPS):
        values = values_of(kernel_fn(*case[:4]))
        inputs = {"drawn": draw(case, 100)} | ({"degenerate": degenerate(case)} if case in CASES else {})
        for group, given in inputs.items():
            yield f"{case.name}/{group}", given | values(given)
    levels = np.broadcast_to(LEVELS[:, None, None, None], (len(LEVELS), *PARALLEL.shape))
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        parallel = np.asarray(jax.jit(kernel_fn(*PARALLEL[:4]), static_argnums=2)(levels[1:4], levels[3:6:2], "ntk"))
        yield "parallel", {"ntk": parallel[-1]}
        x1, x2 = (np.random.default_rng(seed).uniform(-0.5, 0.5, (n, 4, 4, 2)) for seed, n in ((0, 5), (1, 7)))
        yield "networks", {"x1": x1, "x2": x2}
        for name, activation in NETWORKS:
            family, depth = name.split("-")
            kernel = jax.jit(kernel_fn(family, int(depth), 1.76, 0.18, activation), static_argnums=2)
            yield f"networks/{name}/{activation}", {k: np.asarray(kernel(x1, x2, k)) for k in ("ntk", "nngp")}
    yield "law", law()


def law() -> Values:
    """An ensemble of mlp-2 trained for a common time, by neural-tangents' own predictor."""
    import neural_tangents as nt

    from advntk_dist.neural_tangents_adapter import stax  # noqa: F401  # makes neural-tangents importable

    rng = np.random.default_rng(5)
    x, x_test = (rng.uniform(-0.5, 0.5, (n, 2, 2, 1)) for n in (12, 6))
    y = np.eye(3)[rng.integers(0, 3, 12)]
    out: Values = {"x": x, "x_test": x_test, "y": y}
    with jax.enable_x64(True):
        predict = nt.predict.gradient_descent_mse_ensemble(kernel_fn("mlp", 2, 1.3, 0.4), x, y, learning_rate=1.0)
        for i, t in enumerate(LAW_TIMES):
            # Its loss is the mean over samples and outputs: its clock runs slower by their number.
            found = predict(t=None if np.isinf(t) else t * y.size, x_test=x_test, get="ntk", compute_cov=True)
            out |= {f"mean {i}": np.asarray(found.mean), f"covariance {i}": np.asarray(found.covariance)}
    return out


@cache
def _stored() -> Values:
    with np.load(FILE) as archive:
        return {name: archive[name] for name in archive.files}


def golden(group: str) -> Values:
    """The stored arrays of a group."""
    return {name.rpartition("/")[2]: v for name, v in _stored().items() if name.rpartition("/")[0] == group}


def main() -> None:
    """Write the file."""
    arrays: dict[str, Any] = {f"{group}/{k}": v for group, values in reference() for k, v in values.items()}
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
