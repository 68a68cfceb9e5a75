"""The summary in words: sentences composed from the numbers, which say plainly when a method does not help."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from advntk_dist.data.duplicates import Duplicates, NearEqual
from advntk_dist.evaluation.statistics import wilson_interval
from advntk_dist.report.attacks import (
    alone_words,
    attacks_met,
    attacks_words,
    ball_words,
    under_attack,
    worst_results,
)
from advntk_dist.report.inputs import (
    DegenerationCurve,
    Examples,
    Extremes,
    FloatArray,
    IntArray,
    KernelSpectrum,
    ReportInputs,
    TrainingHistory,
    running_mean,
)
from advntk_dist.report.judgements import (
    Chance,
    MethodScore,
    chance_of,
    headline,
    method_scores,
    pair_of,
    pairs_of,
    warnings,
)
from advntk_dist.results.schema import PairRow
from advntk_dist.text import (
    Interval,
    as_number,
    as_percent,
    as_points,
    as_radius,
    beyond_chance,
    disjoint,
    duration,
    join,
    signed,
    with_interval,
)

_SLACK = 1e-6  # float32 rounding of a projection onto the ball; the same bound as the evaluation's


@dataclass(frozen=True)
class Summary:
    """One headline and the sentences under it, each with a short heading, and what a reader must be warned of."""

    headline: str
    points: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()


ALONE = "This is the only attack that the run has met: other attacks may leave less, and rank the methods otherwise."


def summarise(inputs: ReportInputs) -> Summary:
    """Compose the summary of a run: its methods under the worst of all attacks met, and its degeneration curve."""
    results, curve = worst_results(inputs.results), inputs.curve
    scores, met = method_scores(results), attacks_met(results)
    by_key = {score.key: score for score in scores}
    pairs = pairs_of(results)
    chance = chance_of(len(inputs.classes), inputs.y_test[: results["worst_case"]["images"]])
    apart = compare(by_key["adv_ntk"], by_key["early_stopped"], pair_of(pairs, "adv_ntk", "early_stopped"))
    shown = degeneration(curve, pair_of(pairs_of(inputs.results), "early_stopped", "ntk"))
    alone = "" if len(met) <= 1 else " All of this is under the run's own attack alone."
    points = (
        ("Under attack", _ranking(scores, chance)),
        ("A time for each sample", apart),
        ("Robust overfitting", f"{shown}{alone}"),
        ("Attack" if len(met) <= 1 else "Attacks", f"{_attacks(results)} {_attack(results, scores)}"),
    )
    said, leaks = image_warnings(results)
    return Summary(
        " ".join((headline(scores, pairs, chance, under_attack(results)), *leaks)),
        points,
        (*said, *alone_words(results), *warnings(scores, chance, curve, inputs.spectrum)),
    )


def image_warnings(results: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What there is to say of equal and of almost equal images: lines, and sentences for the headline."""
    kinds = ((Duplicates, results.get("duplicates")), (NearEqual, results.get("near_equal")))
    found = [kind.from_dict(values) for kind, values in kinds if values is not None]
    return [line for one in found for line in one.lines()], [one.leak for one in found if one.leak]


def _attacks(results: dict[str, Any]) -> str:
    """Every attack that all methods have met, in full; of one alone, that it is so, and what a tier would cost."""
    met = attacks_met(results)
    if len(met) <= 1:
        return f"{ALONE} {tier_words(results)}"
    return (
        f"An image counts as robust where none of these breaks it ({ball_words(met[0])}): {join(attacks_words(met))}."
    )


def tier_words(results: dict[str, Any], run: str = "RUN") -> str:
    """What a tier that was not run would cost, and how it is run."""
    tier = results.get("tier") or {}
    seconds, name, images = tier.get("predicted_seconds"), tier.get("name") or "standard", tier.get("images")
    sample = "" if images is None else f" --images {images}"
    adds = f"`advntk evaluate {run} --tier {name}{sample}`, then `advntk report {run}`, adds stronger ones"
    if seconds is None:
        return f"{adds}."
    return f"{adds}, in about {duration(seconds)}; the run before it took {duration(tier['run_seconds'])}."


def _ranking(scores: tuple[MethodScore, ...], chance: Chance) -> str:
    ranked = sorted(scores, key=lambda score: -score.robust)
    robust = join([f"{score.title} {with_interval(score.robust, score.robust_interval)}" for score in ranked])
    clean = join([f"{score.title} {as_percent(score.clean)}" for score in ranked])
    return f"Robust accuracy, best first: {robust}. Clean accuracy in the same order: {clean}. Chance: {chance}."


def compare(adv: MethodScore, early: MethodScore, pair: PairRow) -> str:
    """Say whether Adv-NTK beats the early-stopped NTK under attack, and whether that is more than chance.

    The interval of the difference on the same images decides.
    """
    gain, clean = adv.robust - early.robust, adv.clean - early.clean
    ends, images = signed(*pair.robust_interval), f"on the same {pair.n_test:,} images"
    trade = ""
    if clean != 0:
        size = f"{as_points(clean)} {'higher' if clean > 0 else 'lower'}"
        trade = f" Its clean accuracy is {size} ({_interval(pair.clean_interval)})."
    if gain == 0:
        same = f"{as_percent(adv.robust)} (95% interval of the difference {ends}, {images})"
        return f"Adv-NTK is no better than the early-stopped NTK here: both keep {same}.{trade}"
    opening = "Adv-NTK is" if gain > 0 else "Adv-NTK is not better here: it is"
    if beyond_chance(pair.robust_interval):
        verdict = "more than chance."
    elif gain > 0:
        verdict = (
            "which may be chance: this run alone does not show that a time for each sample beats one time for all."
        )
    else:
        verdict = "which may be chance."
    return (
        f"{opening} {as_points(gain)} {'above' if gain > 0 else 'below'} the early-stopped NTK in robust accuracy "
        f"(95% interval {ends}, {images}), {verdict}{trade}"
    )


def _interval(ends: Interval) -> str:
    verdict = "more than chance" if beyond_chance(ends) else "which may be chance"
    return f"95% interval {signed(*ends)}, {verdict}"


def degeneration(curve: DegenerationCurve, pair: PairRow) -> str:
    """Say what the curve shows: robust accuracy at the best finite t against t = infinity.

    A loss is claimed where the intervals of the two do not overlap, or where ``pair``, the NTK stopped at the time that
    the validation images chose against the plain one on the same images, has an interval above 0.
    """
    at = int(np.argmax(curve.robust))
    peak, end = float(curve.robust[at]), curve.robust_ntk
    best_t = as_number(float(curve.times[at]))
    ends = wilson_interval(peak, curve.n_test), wilson_interval(end, curve.n_test)
    chosen = _chosen(pair)
    if peak <= end:
        seen = (
            f"robust accuracy is {with_interval(end, ends[1])} at t = ∞, and {with_interval(peak, ends[0])} at the "
            f"best finite t, {best_t}"
        )
        if disjoint(*ends):
            return f"No degeneration at these times: {seen}.{chosen}"
        return f"No degeneration is seen at these times, nor ruled out, as the intervals overlap: {seen}.{chosen}"
    numbers = f"{as_percent(peak)} at t = {best_t} against {as_percent(end)} at t = ∞"
    if not disjoint(*ends) and pair.robust_interval[0] <= 0:
        return (
            f"Degeneration is not shown: robust accuracy is {numbers}, a loss of {as_points(peak - end)} inside the "
            f"95% intervals.{chosen}"
        )
    at_peak = float(curve.clean[at])
    drift = "rises" if curve.clean_ntk > at_peak else "falls" if curve.clean_ntk < at_peak else "stays"
    clean = f"from {as_percent(at_peak)} to" if drift != "stays" else "at"
    return (
        f"Training for ever costs {as_points(peak - end)} of robust accuracy: {numbers}, while clean accuracy "
        f"{drift} {clean} {as_percent(curve.clean_ntk)}. The peak is read off the test images, "
        f"so it flatters a little.{chosen}"
    )


def _chosen(pair: PairRow) -> str:
    """What stopping at the time that validation chose gains over t = infinity."""
    gain = pair.robust
    size = "the same as" if gain == 0 else f"{as_points(gain)} {'more' if gain > 0 else 'less'} than"
    return f" The time that validation chose keeps {size} t = ∞ ({_interval(pair.robust_interval)})."


def _attack(results: dict[str, Any], scores: tuple[MethodScore, ...]) -> str:
    """Say whether every perturbation kept to the radius."""
    largest, radius = max(score.max_perturbation for score in scores), results["attack"]["radius"]
    if largest <= radius + _SLACK:
        return (
            f"The largest perturbation used was {as_radius(largest)}, within the radius {as_radius(radius)} (pixel "
            "range 1)."
        )
    return (
        f"The largest perturbation used was {as_number(largest)}, beyond the radius {as_radius(radius)}: "
        "do not compare these numbers with those of an attack that keeps to it."
    )


def methods_caption(under: str) -> str:
    """Sentence under the bars; ``under`` names the attacks."""
    return f"Accuracy on clean test images (grey) and under {under} (colour); the lines are 95% intervals."


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


def varpi_caption(varpi: FloatArray, y: IntArray, classes: tuple[str, ...]) -> str:
    """Sentence under the distribution of training times."""
    values = np.asarray(varpi, dtype=np.float64)
    low, middle, high = (as_number(float(value)) for value in np.quantile(values, [0.05, 0.5, 0.95]))
    text = f"Nine in ten of the {values.size:,} samples train for a time between {low} and {high} (median {middle})"
    zeros = int(np.count_nonzero(values == 0))
    if zeros:
        text += f"; {zeros:,} are never trained on (ϖ = 0)"
    medians = {int(label): float(np.median(values[y == label])) for label in np.unique(y)}
    if len(medians) > 1:
        longest, shortest = (pick(medians, key=lambda label: medians[label]) for pick in (max, min))
        text += (
            f"; class {classes[longest]} gets the longest times (median {as_number(medians[longest])}), "
            f"class {classes[shortest]} the shortest ({as_number(medians[shortest])})"
        )
    return f"{text}."


def examples_caption(examples: Examples, title: str) -> str:
    """Sentence under the images."""
    count = examples.shown
    right = np.asarray(examples.predicted_clean[:count]) == np.asarray(examples.labels[:count])
    fooled = int(np.count_nonzero(right & (examples.predicted_adversarial[:count] != examples.labels[:count])))
    grey = "" if examples.clean.shape[-1] == 3 else " (orange: brighter, grey: darker)"
    return (
        f"Test images, their twins attacked against {title}, and the difference magnified "
        f"{as_number(examples.scale)} times{grey}; on top the true class in bold, above "
        f"each image the answer given, ✗ where wrong: "
        f"the attack turns {fooled} of {int(np.count_nonzero(right))} right answers."
    )


def curve_alt(curve: DegenerationCurve) -> str:
    """Describe the degeneration curve for a reader who cannot see it."""
    best = float(np.max(curve.robust))
    return (
        f"Clean and robust accuracy against training time: robust accuracy is at most {as_percent(best)} at a finite "
        f"time and {as_percent(curve.robust_ntk)} at infinity; clean accuracy at infinity is "
        f"{as_percent(curve.clean_ntk)}."
    )


_LEFT_OUT = 0.01  # of the median time


def extremes_caption(extremes: Extremes, varpi: FloatArray) -> str:
    """Sentence under the images; ``varpi`` are the times of all training images."""
    longest, shortest = float(np.max(extremes.longest_times)), float(np.min(extremes.shortest_times))
    median = float(np.median(varpi))
    ends = (f"up to {as_number(longest)}", f"from {as_number(shortest)}")
    if median > 0:
        ends = (f"{ends[0]}, {_times(longest / median)}", f"{ends[1]}, {_times(shortest / median)}")
    text = (
        f"The training images with the longest times ({ends[0]}) and the shortest ({ends[1]}), class and ϖ above each"
    )
    if float(np.max(extremes.shortest_times)) < _LEFT_OUT * median:
        text += ": the shortest are all but left out"
    return f"{text}."


def _times(ratio: float) -> str:
    return f"{as_number(ratio)} times the median of all"


def spectrum_caption(spectrum: KernelSpectrum, chosen_t: float) -> str:
    """Sentence under the spectrum."""
    values = np.asarray(spectrum.eigenvalues)
    text = (
        f"The {len(values)} largest eigenvalues of the {spectrum.n:,} x {spectrum.n:,} Gram matrix fall from "
        f"{as_number(float(values[0]))} to {as_number(float(values[-1]))}; a mode of eigenvalue λ "
        "is learned by the time 1/λ"
    )
    if math.isfinite(chosen_t) and chosen_t > 0:
        learned = int((values * chosen_t >= 1).sum())
        whole = f"{learned}" if learned < len(values) else f"all {learned} of these and perhaps more"
        text += f": at the time that validation chose these are {whole}"
    return f"{text}."
