"""From committed trials to the numbers of results.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import linregress, t

from advntk_dist.config.finite_width import FiniteWidthConfig
from advntk_dist.dynamics import ATDynamics
from advntk_dist.evaluation import MethodResult
from advntk_dist.evaluation.statistics import wilson_interval
from advntk_dist.finite.adversarial_training import TrainingPoint
from advntk_dist.finite.flow import flow_times
from advntk_dist.finite.trials import FLOW_FIELDS
from advntk_dist.networks import Network

Array = NDArray[np.float64]

FALLING = ("gap_train", "gap_test", "ntk_change", "ark_change")
"""What the theorem says vanishes with growing width."""

LAST, BEST = "finite_at", "finite_at_best"
"""Rows of the table: finite networks after the last step, and at the evaluation that the validation images chose."""


def flow_summary(
    config: FiniteWidthConfig,
    numbers: dict[tuple[int, int], Array],
    outputs: dict[tuple[int, int], Array],
    response: Array,
    y: Array,
) -> dict[str, Any]:
    """Rows, slopes and comparison with the closed form.

    Parameters
    ----------
    config
        The configuration.
    numbers, outputs
        By (width, seed): fields as FLOW_FIELDS, and f_t (times, n + m, k).
    response, y
        As :func:`closed_form` has it, (times, n + m, n), and the targets (n, k).
    """
    closed = response @ y
    flow = config.flow
    rows = [
        {"width": width, "seed": seed} | dict(zip(FLOW_FIELDS, map(float, row), strict=True))
        for (width, seed), row in sorted(numbers.items())
    ]
    slopes = {f: asdict(fit_slope([r["width"] for r in rows], [r[f] for r in rows])) for f in FALLING}
    comparison = []
    for width in flow.widths:
        ensemble = np.stack([outputs[width, seed] for seed in range(flow.seeds)])
        found = compare_with_closed_form(ensemble, closed)
        # The random start is most of the spread, and its decay is known: without it the same mean is known far better.
        start = ensemble[:, :1]
        decayed = start - response @ start[:, :, : len(y)]
        sharp = compare_with_closed_form(ensemble - decayed, closed)
        del sharp["within"]
        comparison.append({"width": width} | found | {"start_removed": sharp})
    size = float(np.sqrt((closed**2).mean(axis=(1, 2))).max())
    return {
        "rows": rows,
        "slopes": slopes,
        "closed_form": {"times": flow_times(flow).tolist(), "size": size, "widths": comparison},
    }


def closed_form(net: Network, x: Array, x_test: Array, config: FiniteWidthConfig) -> tuple[Array, Array]:
    """Infinite width: what f_t at training and then test images is made of, and ARK (n,) of the training images.

    f_t = f_0 + R_t (Y - f_0(X)), R_t = Theta(., X) Theta^-1 (I - exp(-Theta Xi(t))); R comes back, (times, n + m, n).
    """
    flow = config.flow
    theta = np.asarray(net.ntk(x, x), np.float64)
    across = np.concatenate([theta, np.asarray(net.ntk(x_test, x), np.float64)])
    ark = np.asarray(net.ark(x), np.float64)
    varpi = np.exp(ark * flow.eta * flow.inner_time)  # Xi(t) = t varpi: the rate is constant
    solutions = ATDynamics(theta, np.eye(len(x))).trajectory(varpi, flow_times(flow).tolist())
    return np.stack([across @ solution.value for solution in solutions]), ark


def training_summary(config: FiniteWidthConfig, trials: dict[int, list[TrainingPoint]]) -> dict[str, Any]:
    """Accuracies over the steps, by seed."""
    return {
        "width": config.finite.width,
        "seeds": {
            str(seed): [
                {
                    "step": int(point.record.step),
                    "loss": point.record.loss,
                    "robust_train": point.record.robust_train,
                    "validation_robust": point.validation.robust.value,
                    "clean": point.test.clean.value,
                    "robust": point.test.robust.value,
                }
                for point in points
            ]
            for seed, points in trials.items()
        },
    }


def method_rows(trials: dict[int, list[TrainingPoint]]) -> dict[str, dict[str, Any]]:
    """The two rows of the table; a mean over seeds with the Wilson interval of the test images at that mean."""

    def stopped(points: list[TrainingPoint]) -> TrainingPoint:
        return max(points, key=lambda point: (point.validation.robust.value, -point.record.step))

    return {
        LAST: _row([points[-1] for points in trials.values()]),
        BEST: _row([stopped(points) for points in trials.values()]),
    }


def _row(points: Sequence[TrainingPoint]) -> dict[str, Any]:
    tests: list[MethodResult] = [point.test for point in points]
    n = tests[0].clean.n
    row: dict[str, Any] = {}
    for key in ("clean", "robust"):
        by_seed = [float(getattr(test, key).value) for test in tests]
        mean = float(np.mean(by_seed))
        row |= {key: mean, f"{key}_interval": list(wilson_interval(mean, n)), f"{key}_by_seed": by_seed}
    return row | {
        "n_test": n,
        "max_perturbation": max(test.max_perturbation for test in tests),
        "steps": [int(point.record.step) for point in points],
    }


@dataclass(frozen=True)
class Slope:
    """log value = intercept + slope log width, least squares over trials; 95% t interval of the slope."""

    slope: float
    low: float
    high: float
    intercept: float
    trials: int


def fit_slope(widths: ArrayLike, values: ArrayLike) -> Slope:
    """Fit a power of the width to one positive value a trial.

    Raises
    ------
    ValueError
        If there are fewer than three trials or two widths, or a value is not positive and finite.
    """
    x, y = np.asarray(widths, np.float64), np.asarray(values, np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3 or len(set(x.tolist())) < 2:
        raise ValueError(f"a slope needs three trials of two widths, got widths {x.tolist()} and {y.size} values")
    if not (np.isfinite(y).all() and (y > 0).all()):
        raise ValueError(f"a power law needs positive values, got {y.tolist()}")
    line = linregress(np.log(x), np.log(y))
    half = float(t.ppf(0.975, len(x) - 2)) * float(line.stderr)
    return Slope(float(line.slope), float(line.slope) - half, float(line.slope) + half, float(line.intercept), len(x))


def compare_with_closed_form(outputs: Array, closed_form: Array) -> dict[str, Any]:
    """Compare outputs of seeds (seeds, times, m, k), at least two seeds, with the closed form (times, m, k).

    Returns
    -------
    dict
        Lists of one number a time. "distance": root mean square over images and outputs of (mean over seeds - closed
        form). "standard_error": that of the mean's standard error, the distance that chance alone would make. "within":
        fraction of entries whose closed form lies in the mean's 95% t interval; 0.95 for exact agreement.
    """
    seeds = len(outputs)
    if seeds < 2:
        raise ValueError(f"a standard error needs two seeds, got {seeds}")
    difference = outputs.mean(axis=0) - closed_form
    error = outputs.std(axis=0, ddof=1) / np.sqrt(seeds)
    inside = np.abs(difference) <= float(t.ppf(0.975, seeds - 1)) * error
    axes = (1, 2)
    return {
        "distance": np.sqrt((difference**2).mean(axis=axes)).tolist(),
        "standard_error": np.sqrt((error**2).mean(axis=axes)).tolist(),
        "within": inside.mean(axis=axes).tolist(),
    }
