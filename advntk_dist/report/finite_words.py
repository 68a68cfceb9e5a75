"""One sentence under each plot of a finite-width run: what the reader sees, and what the numbers do not bear out."""

from __future__ import annotations

from typing import Any

import numpy as np

from advntk_dist.evaluation.statistics import wilson_interval
from advntk_dist.report.scores import MethodScore, as_number, as_percent, as_points, disjoint

_NAMES = {
    "gap_train": "the gap on training images",
    "gap_test": "the gap on test images",
    "ntk_change": "the change of the NTK",
    "ark_change": "the change of ARK",
}


def width_caption(flow: dict[str, Any]) -> str:
    """Sentence under the plot against width."""
    falls = [name for field, name in _NAMES.items() if flow["slopes"][field]["high"] < 0]
    rest = [name for field, name in _NAMES.items() if flow["slopes"][field]["high"] >= 0]
    gap = flow["slopes"]["gap_test"]
    verdict = f"{_join(falls)} fall{'s' if len(falls) == 1 else ''} with width" if falls else "nothing falls with width"
    doubt = f"; for {_join(rest)} these networks do not show it" if rest else ""
    return (
        f"Each dot is a network trained to the last time: {verdict}{doubt}; the gap on test images goes as width to "
        f"the power {gap['slope']:.2f} (95% interval {gap['low']:.2f} to {gap['high']:.2f})."
    )


def ensemble_caption(closed: dict[str, Any], seeds: int) -> str:
    """Sentence under the comparison with the closed form."""
    narrow, widest = closed["widths"][0], closed["widths"][-1]
    far, chance = (max(widest["start_removed"][key]) for key in ("distance", "standard_error"))
    within = float(np.mean(widest["within"]))
    return (
        f"Solid: distance between the mean of {seeds} networks, the known decay of their random starts taken off, and "
        f"the closed form of infinite width; dashed: the standard error of that mean; at width {widest['width']} the "
        f"distance is at most {as_number(far)} with a standard error of {as_number(chance)} (width {narrow['width']}: "
        f"{as_number(max(narrow['start_removed']['distance']))}; outputs of {as_number(closed['size'])}), and "
        f"{as_percent(within)} of the closed form's values lie in the 95% intervals of the plain means."
    )


def training_caption(training: dict[str, Any], n_test: int) -> str:
    """Sentence under adversarial training: whether robust overfitting is seen."""
    curves = np.array([[point["robust"] for point in points] for points in training["seeds"].values()])
    steps = [point["step"] for point in next(iter(training["seeds"].values()))]
    mean = curves.mean(axis=0)
    at = int(mean.argmax())
    peak, end = float(mean[at]), float(mean[-1])
    numbers = f"{as_percent(peak)} at step {as_number(steps[at])} against {as_percent(end)} at the last"
    fitted = [points[-1]["robust_train"] for points in training["seeds"].values()]
    told = f"on attacked training batches it ends at {as_percent(float(np.mean(fitted)))}"
    if at == len(steps) - 1:
        return (
            f"No robust overfitting in these steps: robust test accuracy is highest at the end ({as_percent(end)}); "
            f"{told}."
        )
    if not disjoint(wilson_interval(peak, n_test), wilson_interval(end, n_test)):
        return (
            f"Robust test accuracy is {numbers}, a loss of {as_points(peak - end)} inside the 95% intervals, so robust "
            f"overfitting is not shown; {told}."
        )
    return f"Robust overfitting: robust test accuracy is {numbers}, a loss of {as_points(peak - end)}, while {told}."


def headline(scores: tuple[MethodScore, ...], attack: str) -> str:
    """The best of the finite networks and the best of the infinite-width methods, under this attack alone."""
    finite = max((s for s in scores if s.key.startswith("finite_at")), key=lambda s: s.robust)
    infinite = max((s for s in scores if not s.key.startswith("finite_at")), key=lambda s: s.robust)
    gain = finite.robust - infinite.robust
    side = "ahead of" if gain > 0 else "behind" if gain < 0 else "level with"
    by = "" if gain == 0 else f"{as_points(gain)} "
    sure = (
        finite.robust_interval
        and infinite.robust_interval
        and disjoint(finite.robust_interval, infinite.robust_interval)
    )
    doubt = "" if sure else "; the intervals overlap"
    return (
        f"Under {attack} alone, finite networks are {by}{side} the best infinite-width method: {finite.title} "
        f"{as_percent(finite.robust)}, {infinite.title} {as_percent(infinite.robust)}{doubt}."
    )


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
