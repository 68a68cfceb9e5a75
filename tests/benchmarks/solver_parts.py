"""Parts of ``solver.py`` that make a matrix of their own: products in memory, t = infinity, tolerances of training.

"held" times products with 1, 10 and 20 vectors; "limit" counts what t = infinity takes with the basis of the finite
times, and by preconditioned conjugate gradients; "tolerance" trains to the end with several tolerances of the solves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist import pgd
from advntk_dist.config import TrainConfig
from advntk_dist.data import Dataset, one_hot, split
from advntk_dist.dynamics import ATDynamics
from advntk_dist.environment import usable_cores
from advntk_dist.networks import network
from advntk_dist.operators import InMemoryOperator
from advntk_dist.predictor import KernelPredictor
from advntk_dist.solve.cg import solve_infinite_time
from advntk_dist.solve.limit import rank_cutoff
from advntk_dist.training import train_adv_ntk
from advntk_dist.training.cross_fit import CrossFitRecipe
from bench import CLOCKS, medians

Array = NDArray[np.float64]

K, TOLERANCE, HELD_GOAL = 10, 1e-6, 1.5
TRAINING = TrainConfig()
TOLERANCES = (1e-6, 1e-4, 1e-3, 1e-2)
START_TIMES = (1e-3, 2e-3, 4e-3, 1e-2, 2e-2)
LIMIT_TIMES = (3e-4, 1e-3, 2e-3, 3e-3, 4e-3, 6e-3, 1e-2, 3e-2, 1e-1, 1.0)


def measure_held(theta: NDArray[np.float32], repeats: int) -> dict[str, Any]:
    """Products with a matrix in memory, against reading its stored half and the arithmetic of the whole, in float64."""
    n, threads = len(theta), usable_cores()
    operator = InMemoryOperator(theta, threads=threads)
    half = np.array_split(theta.reshape(-1)[: n * n // 2].view(np.uint64), threads)
    square = np.random.default_rng(1).standard_normal((1024, 1024))
    blocks = {k: np.random.default_rng(k).standard_normal((n, k)) for k in (1, K, 2 * K)}
    with ThreadPoolExecutor(threads) as pool:
        calls: dict[str, Callable[[], Any]] = {
            "read": lambda: list(pool.map(np.bitwise_or.reduce, half)),
            "product": lambda: square @ square,
        }
        calls |= {f"pass {k}": partial(operator.matmat, v) for k, v in blocks.items()}
        seconds = medians(calls, repeats)
    ratios = {
        k: {c: seconds[f"pass {k}"][c] / max(seconds["read"][c], seconds["product"][c] * n**2 * k / 1024**3)
            for c in CLOCKS}
        for k in blocks
    }  # fmt: skip
    return {"n": n, "dtype": "float32", "seconds": seconds, "ratio": ratios, "goal": HELD_GOAL}


class Counted(InMemoryOperator):
    """Counts the vectors that it multiplies, too."""

    columns = 0

    def _multiply(self, v: Array) -> Array:
        self.columns += v.shape[1]
        return super()._multiply(v)


def measure_limit(theta: NDArray[np.float32], y: Array, repeats: int) -> dict[str, Any]:
    """Finite times and t = infinity from one basis, against a basis and preconditioned conjugate gradients."""
    values: dict[str, Array] = {}
    counts: dict[str, dict[str, int]] = {}

    def solve(name: str, at_infinity: Callable[[ATDynamics], Array]) -> None:
        operator = Counted(theta)
        dynamics = ATDynamics(operator, y)
        dynamics.trajectory(1.0, LIMIT_TIMES, TOLERANCE)
        values[name] = at_infinity(dynamics)
        counts[name] = {"passes": operator.passes, "columns": operator.columns}

    def apart(dynamics: ATDynamics) -> Array:
        cutoff = rank_cutoff(len(y), dynamics.operator.diagonal_mean(), theta.dtype)
        matmat = dynamics.operator.matmat
        return solve_infinite_time(matmat, y, tolerance=TOLERANCE, cutoff=cutoff).checked("limit", TOLERANCE).value

    def together(dynamics: ATDynamics) -> Array:
        return dynamics.coefficients(1.0, np.inf, TOLERANCE).value

    ways = {"one basis": together, "conjugate gradients": apart}
    seconds = medians({name: partial(solve, name, way) for name, way in ways.items()}, repeats)
    ours, theirs = values.values()
    return {
        "n": len(y),
        "dtype": "float32",
        "tolerance": TOLERANCE,
        "last_time": LIMIT_TIMES[-1],
        "products": counts,
        "seconds": seconds,
        "relative_difference": float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)),
    }


def kernel_of(data: Dataset, n: int, seed: int = 0) -> tuple[NDArray[np.float32], Array]:
    """The MLP-5 matrix of n training images, and their targets."""
    chosen = split(data, n_train=n, n_val=1, n_test=1, seed=seed).train
    x = data.x[chosen].astype(np.float32) / 255 - 0.5
    theta = np.triu(np.asarray(network("mlp-5").ntk(x, x)))
    return theta + np.triu(theta, 1).T, np.asarray(one_hot(data.y[chosen], data.n_classes))


def train(
    images: tuple[NDArray[np.float32], NDArray[np.int64]],
    dynamics: ATDynamics,
    predictor: KernelPredictor,
    start: float,
    seed: int,
    tolerance: float,
) -> tuple[Array, dict[str, float]]:
    """Trained varpi (n,), and seconds by :data:`bench.CLOCKS`, of a whole cross-fit training from a uniform time."""
    recipe = CrossFitRecipe(
        *(*images, partial(pgd, radius=8 / 255, steps=10, step_size=1.6 / 255), lambda: start),
        **{key: getattr(TRAINING, key) for key in ("steps", "lr", "batch", "folds", "clean_weight")},
        seed=seed,
        tolerance=tolerance,
    )
    group, wall, cpu = zarr.create_group(zarr.storage.MemoryStore()), time.perf_counter(), time.process_time()
    n, steps = len(images[0]), TRAINING.steps
    run = train_adv_ntk(recipe, lambda: dynamics, lambda: predictor, n, group=group, steps=steps)
    return run.varpi, dict(zip(CLOCKS, (time.perf_counter() - wall, time.process_time() - cpu), strict=True))


def measure_tolerance(data: Dataset, n: int, seeds: int) -> dict[str, Any]:
    """Whole cross-fit trainings with several tolerances of their solves: what they learn, passes and seconds.

    The images are drawn anew for each seed. ``robust`` is the accuracy on 1,000 held-out images under PGD-20 on
    margins, of coefficients that are always solved to ``TOLERANCE``; ``cosine`` compares the change of log varpi with
    that of the tightest tolerance.
    """
    net, attacked = network("mlp-5"), 1000
    judge = partial(pgd, radius=8 / 255, steps=20, step_size=1 / 255)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        chosen = split(data, n_train=n, n_val=attacked, n_test=1, seed=seed)
        x, x_val = (data.x[part].astype(np.float32) / 255 - 0.5 for part in (chosen.train, chosen.val))
        labels, wanted = data.y[chosen.train], data.y[chosen.val]
        y = np.asarray(one_hot(labels, data.n_classes))
        theta = np.array(net.ntk(x, x))
        theta = np.triu(theta) + np.triu(theta, 1).T
        predictor = KernelPredictor(net, x, np.zeros_like(y))

        def robust(c: Array, at: Any = predictor, x: Any = x_val, wanted: Any = wanted, seed: int = seed) -> float:
            current = at.with_coefficients(c)
            twins = judge(current, x, wanted, seed=seed, indices=np.arange(len(x)))
            return float((current.predict(twins).argmax(axis=1) == wanted).mean())

        uniform = ATDynamics(theta, y).trajectory(1.0, START_TIMES, TOLERANCE)
        start = START_TIMES[int(np.argmax([robust(solution.value) for solution in uniform]))]
        reference: Array | None = None
        for tolerance in TOLERANCES:
            dynamics = ATDynamics(theta, y)
            varpi, seconds = train((x, labels), dynamics, predictor, start, seed, tolerance)
            passes, change = dynamics.operator.passes, np.log(varpi / start)
            reference = change if reference is None else reference
            cosine = change @ reference / (np.linalg.norm(change) * np.linalg.norm(reference))
            row = {"seed": seed, "tolerance": tolerance, "start": start, "passes": passes, "seconds": seconds}
            row |= {"robust": robust(dynamics.coefficients(varpi, tol=TOLERANCE).value), "cosine": float(cosine)}
            rows.append(row)
            print("tolerance:", row, flush=True)
    return {"n": n, "held_out": attacked, "dtype": "float32", "trainings": rows}
