"""Make the golden values of the test suite by a naive dense reference, in float64.

Kernels come straight from neural-tangents, the dynamics from the matrix exponential and an inverse as the
theorem is written, the gradient in varpi from Frechet derivatives of the exponential, the gradient in x from JAX
through the whole kernel. Nothing of the package's solver takes part. ``python -m tests.golden.make`` writes the .npz
files again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm, expm_frechet

from tests.golden.make_kernels import kernel_fn

Array = NDArray[np.float64]

W_STD, B_STD = 1.76, 0.18
FOLDER = Path(__file__).parent
SIZES = ("small", "large", "zeros")
CASES: dict[str, dict[str, Any]] = {
    "mlp3_relu": {"network": ("mlp", 3), "shape": (6, 6, 1), "train": 24, "val": 6, "seed": 1},
    "cnn2_relu": {"network": ("cnn", 2), "shape": (5, 5, 2), "train": 16, "val": 4, "seed": 2},
    "mlp2_erf": {"network": ("mlp", 2), "activation": "erf", "shape": (4, 4, 1), "train": 20, "val": 5, "seed": 3},
}


def inputs(case: str) -> dict[str, NDArray[Any]]:
    """Smooth random images as uint8, labels of 4 classes, and three sets of effective times."""
    spec = CASES[case]
    rng = np.random.default_rng(spec["seed"])
    n, m = spec["train"], spec["val"]
    x = rng.integers(0, 256, (n + m, *spec["shape"])).astype(np.uint8)
    y = rng.integers(0, 4, n + m)
    varpi = rng.uniform(0.0, 2.0, n)
    return {
        "x_train": x[:n],
        "y_train": y[:n],
        "x_val": x[n:],
        "y_val": y[n:],
        "varpi_small": 0.01 * varpi,
        "varpi_large": varpi,
        "varpi_zeros": np.where(np.arange(n) % 3 == 0, 0.0, varpi),
    }


def reference(case: str) -> dict[str, Array]:
    """All golden values of a case from its inputs."""
    given, spec = inputs(case), CASES[case]
    family, depth = spec["network"]
    x_train, x_val = given["x_train"] / 255 - 0.5, given["x_val"] / 255 - 0.5
    y, y_val = np.eye(4)[given["y_train"]], np.eye(4)[given["y_val"]]
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        kernel = jax.jit(kernel_fn(family, depth, W_STD, B_STD, spec.get("activation", "relu")), static_argnums=2)
        theta = np.asarray(kernel(x_train, x_train, "ntk"))
        k_val = np.asarray(kernel(x_val, x_train, "ntk"))
        out = {"ntk_train": theta, "ntk_val": k_val, "nngp_val": np.asarray(kernel(x_val, x_train, "nngp"))}
        gradient = jax.jit(jax.grad(_squared_error), static_argnums=4)
        for size in SIZES:
            c = _coefficients(theta, given[f"varpi_{size}"], y)
            out[f"grad_x_{size}"] = np.asarray(gradient(x_val, x_train, c, y_val, kernel))
    return out | dynamics(given, theta, k_val)


def dynamics(given: dict[str, NDArray[Any]], theta: Array, k_val: Array) -> dict[str, Array]:
    """The golden values that follow from the inputs and the kernels."""
    y, y_val = np.eye(4)[given["y_train"]], np.eye(4)[given["y_val"]]
    inverse: Array = np.linalg.inv(theta).astype(np.float64)
    out = {"f_ntk": k_val @ inverse @ y}
    for size in SIZES:
        varpi = given[f"varpi_{size}"]
        out[f"f_{size}"] = k_val @ _coefficients(theta, varpi, y)
        residual = out[f"f_{size}"] - y_val
        pulled = k_val.T @ residual / len(y_val)
        out[f"loss_{size}"] = np.asarray(0.5 * (residual**2).sum() / len(y_val))
        out[f"grad_varpi_{size}"] = np.array([_along(i, theta, varpi, inverse, y, pulled) for i in range(len(y))])
    return out


def _coefficients(theta: Array, varpi: Array, y: Array) -> Array:
    return np.asarray(np.linalg.inv(theta) @ (np.eye(len(theta)) - expm(-theta * varpi)) @ y)


def _along(i: int, theta: Array, varpi: Array, inverse: Array, y: Array, pulled: Array) -> float:
    """Derivative of the loss in varpi_i."""
    direction = np.zeros_like(theta)
    direction[:, i] = -theta[:, i]
    change = expm_frechet(-theta * varpi, direction, compute_expm=False)
    return float((pulled * (-inverse @ change @ y)).sum())


def _squared_error(x: Any, x_train: Array, c: Array, y: Array, kernel: Any) -> Any:
    return 0.5 * ((kernel(x, x_train, "ntk") @ c - y) ** 2).sum()


def main() -> None:
    """Write one .npz file a case."""
    for case in CASES:
        values: dict[str, Any] = {**inputs(case), **reference(case)}
        np.savez_compressed(FOLDER / f"{case}.npz", **values)


if __name__ == "__main__":
    main()
