"""The summary in words: sentences composed from the numbers, which say plainly when a method does not help."""

from __future__ import annotations

from dataclasses import dataclass

from advntk_dist.data.duplicates import Duplicates, NearEqual
from advntk_dist.report.attacks import alone_words, attacks_words, ball_words, under_attack
from advntk_dist.report.inputs import DegenerationCurve, ReportInputs
from advntk_dist.report.judgements import Chance, MethodScore, chance_of, headline, pair_of, run_scores, warnings
from advntk_dist.results.schema import PairRow, RunResults, WorstCaseResults
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
    results, met, curve = inputs.results, inputs.results.met, DegenerationCurve.of(inputs.results)
    scores = run_scores(results, met.methods)
    by_key = {score.key: score for score in scores}
    chance = chance_of(len(inputs.classes), inputs.y_test[: met.images])
    apart = compare(by_key["adv_ntk"], by_key["early_stopped"], pair_of(met.paired, "adv_ntk", "early_stopped"))
    shown = degeneration(curve, pair_of(results.paired, "early_stopped", "ntk"))
    several = len(met.attacks) > 1
    alone = " All of this is under the run's own attack alone." if several else ""
    points = (
        ("Under attack", _ranking(scores, chance)),
        ("A time for each sample", apart),
        ("Robust overfitting", f"{shown}{alone}"),
        ("Attacks" if several else "Attack", f"{_attacks(results, met)} {_attack(results, scores)}"),
    )
    said, leaks = image_warnings(results)
    return Summary(
        " ".join((headline(scores, met.paired, chance, under_attack(met)), *leaks)),
        points,
        (*said, *alone_words(met), *warnings(scores, chance, curve, inputs.spectrum)),
    )


def image_warnings(results: RunResults) -> tuple[list[str], list[str]]:
    """What there is to say of equal and of almost equal images: lines, and sentences for the headline."""
    kinds = ((Duplicates, results.duplicates), (NearEqual, results.near_equal))
    found = [kind.from_dict(values) for kind, values in kinds if values is not None]
    return [line for one in found for line in one.lines()], [one.leak for one in found if one.leak]


def _attacks(results: RunResults, met: WorstCaseResults) -> str:
    """Every attack that all methods have met, in full; of one alone, that it is so, and what a tier would cost."""
    if len(met.attacks) == 1:
        return f"{ALONE} {tier_words(results)}"
    return (
        f"An image counts as robust where none of these breaks it ({ball_words(met.attacks[0])}): "
        f"{join(attacks_words(met.attacks))}."
    )


def tier_words(results: RunResults, run: str = "RUN") -> str:
    """What a tier that was not run would cost, and how it is run."""
    tier = results.tier
    sample = "" if tier.images is None else f" --images {tier.images}"
    adds = (
        f"`advntk evaluate {run} --tier {tier.name or 'standard'}{sample}`, then `advntk report {run}`, adds stronger "
        "ones"
    )
    if tier.predicted_seconds is None or tier.run_seconds is None:
        return f"{adds}."
    return f"{adds}, in about {duration(tier.predicted_seconds)}; the run before it took {duration(tier.run_seconds)}."


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
    best_time, best = max(zip(curve.times, curve.rows, strict=True), key=lambda point: point[1].robust)
    peak, end, best_t = best.robust, curve.limit.robust, as_number(best_time)
    ends = best.robust_interval, curve.limit.robust_interval
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
    at_peak, limit = best.clean, curve.limit.clean
    drift = "rises" if limit > at_peak else "falls" if limit < at_peak else "stays"
    clean = f"from {as_percent(at_peak)} to" if drift != "stays" else "at"
    return (
        f"Training for ever costs {as_points(peak - end)} of robust accuracy: {numbers}, while clean accuracy "
        f"{drift} {clean} {as_percent(limit)}. The peak is read off the test images, "
        f"so it flatters a little.{chosen}"
    )


def _chosen(pair: PairRow) -> str:
    """What stopping at the time that validation chose gains over t = infinity."""
    gain = pair.robust
    size = "the same as" if gain == 0 else f"{as_points(gain)} {'more' if gain > 0 else 'less'} than"
    return f" The time that validation chose keeps {size} t = ∞ ({_interval(pair.robust_interval)})."


def _attack(results: RunResults, scores: tuple[MethodScore, ...]) -> str:
    """Say whether every perturbation kept to the radius."""
    largest, radius = max(score.max_perturbation for score in scores), results.attack["radius"]
    if largest <= radius + _SLACK:
        return (
            f"The largest perturbation used was {as_radius(largest)}, within the radius {as_radius(radius)} (pixel "
            "range 1)."
        )
    return (
        f"The largest perturbation used was {as_number(largest)}, beyond the radius {as_radius(radius)}: "
        "do not compare these numbers with those of an attack that keeps to it."
    )
