"""One sentence under each plot: what the reader sees, with the numbers that matter."""

from __future__ import annotations

import math

import numpy as np

from advntk_dist.report.inputs import DegenerationCurve, Examples, FloatArray, IntArray, TrainingHistory, running_mean
from advntk_dist.report.run_plots import SHOWN, difference_scale
from advntk_dist.report.scores import MethodScore, as_number, as_percent


def methods_caption(scores: tuple[MethodScore, ...], under: str) -> str:
    """Sentence under the bars; ``under`` names the attacks."""
    bars = f"Accuracy on clean test images (grey) and under {under} (colour)"
    missing = any(score.clean_interval is None or score.robust_interval is None for score in scores)
    lines = "the lines are 95% intervals" + (", where recorded." if missing else ".")
    return f"{bars}; {lines}"


def curve_caption(curve: DegenerationCurve) -> str:
    """Sentence under the degeneration curve."""
    chosen = "infinity" if math.isinf(curve.chosen_t) else as_number(curve.chosen_t)
    skipped = " t = 0 has no place on the log axis." if curve.times[0] == 0 else ""
    return (
        "One training time t for all samples: dashed lines are the plain NTK, the limit of t to infinity; "
        f"bands are 95% intervals of {curve.n_test:,} test images; the validation images chose t = {chosen}.{skipped}"
    )


def training_caption(history: TrainingHistory) -> str:
    """Sentence under the training curves."""
    steps, mean = np.size(history.loss), as_number(float(history.varpi_mean[-1]))
    opening = f"Over {steps:,} step{'' if steps == 1 else 's'} of Adv-NTK"
    return f"{opening} {_loss(history)}, and ϖ reaches a mean of {mean}."


def _loss(history: TrainingHistory) -> str:
    """What became of the loss on attacked batches, from whole cycles, which saw the same kinds of images."""
    steps, cycle = np.size(history.loss), history.cycle
    if cycle > 1 and steps < 2 * cycle:
        return f"the loss is not compared, as there are less than two cycles of {cycle} steps"
    width = cycle if cycle > 1 else max(1, steps // 10)
    means = running_mean(history.loss, width)
    start, end = as_number(float(means[0])), as_number(float(means[-1]))
    of = f"a cycle of {cycle} steps (bold)" if cycle > 1 else f"{width} steps"
    which = f", the mean of {of}," if width > 1 else ""
    change = "falls" if means[-1] < means[0] else "rises"
    return f"the loss on attacked batches{which} " + (
        f"stays at {end}" if start == end else f"{change} from {start} to {end}"
    )


def varpi_caption(varpi: FloatArray, y: IntArray | None, classes: tuple[str, ...]) -> str:
    """Sentence under the distribution of training times."""
    values = np.asarray(varpi, dtype=np.float64)
    low, middle, high = (as_number(float(value)) for value in np.quantile(values, [0.05, 0.5, 0.95]))
    text = f"Nine in ten of the {values.size:,} samples train for a time between {low} and {high} (median {middle})"
    zeros = int(np.count_nonzero(values == 0))
    if zeros:
        text += f"; {zeros:,} are never trained on (ϖ = 0)"
    if y is not None:
        labels = np.asarray(y)
        medians = {int(label): float(np.median(values[labels == label])) for label in np.unique(labels)}
        if len(medians) > 1:
            longest, shortest = (pick(medians, key=lambda label: medians[label]) for pick in (max, min))
            text += (
                f"; class {classes[longest]} gets the longest times (median {as_number(medians[longest])}), "
                f"class {classes[shortest]} the shortest ({as_number(medians[shortest])})"
            )
    return f"{text}."


def examples_caption(examples: Examples, title: str) -> str:
    """Sentence under the images."""
    count = min(len(examples.labels), SHOWN)
    right = np.asarray(examples.predicted_clean[:count]) == np.asarray(examples.labels[:count])
    fooled = int(np.count_nonzero(right & (examples.predicted_adversarial[:count] != examples.labels[:count])))
    grey = "" if examples.clean.shape[-1] == 3 else " (orange: brighter, grey: darker)"
    return (
        f"Test images, their twins attacked against {title}, and the difference magnified "
        f"{as_number(difference_scale(examples))} times{grey}; on top the true class in bold, above "
        f"each image the answer given, ✗ where wrong: "
        f"the attack turns {fooled} of {int(np.count_nonzero(right))} right answers."
    )


def curve_alt(curve: DegenerationCurve) -> str:
    """Describe the degeneration curve for a reader who cannot see it."""
    best = float(np.nanmax(curve.robust)) if np.isfinite(curve.robust).any() else math.nan
    return (
        f"Clean and robust accuracy against training time: robust accuracy is at most {as_percent(best)} at a finite "
        f"time and {as_percent(curve.robust_ntk)} at infinity; clean accuracy at infinity is "
        f"{as_percent(curve.clean_ntk)}."
    )
