"""The summary in words: sentences composed from the numbers, which say plainly when a method does not help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from advntk_dist.intervals import wilson_interval
from advntk_dist.report.inputs import ReportInputs
from advntk_dist.report.paired import Pair, pairs_of
from advntk_dist.report.parts import Curve
from advntk_dist.report.scores import (
    MethodScore,
    as_number,
    as_percent,
    as_points,
    as_radius,
    disjoint,
    is_finite_number,
    method_scores,
)

_NORMS = {"linf": "l∞", "l2": "l2"}
_SLACK = 1e-6  # float32 rounding of a projection onto the ball; the same bound as the evaluation's


@dataclass(frozen=True)
class Summary:
    """One headline and the sentences under it, each with a short heading."""

    headline: str
    points: tuple[tuple[str, str], ...]


def summarise(inputs: ReportInputs) -> Summary:
    """Compose the summary of a run from its results and its degeneration curve."""
    scores = method_scores(inputs.results)
    by_key = {score.key: score for score in scores}
    points = [("Under attack", _ranking(scores))]
    if "adv_ntk" in by_key and "early_stopped" in by_key:
        pairs = {(p.method, p.against): p for p in pairs_of(inputs.results)}
        pair = pairs.get(("adv_ntk", "early_stopped"))
        points.append(("A time for each sample", compare(by_key["adv_ntk"], by_key["early_stopped"], pair)))
    if inputs.curve is not None:
        points.append(("Robust overfitting", degeneration(inputs.curve)))
    points.append(("Attack", _attack(inputs.results, scores)))
    return Summary(_headline(scores), tuple(points))


def _with_interval(score: MethodScore) -> str:
    if score.robust_interval is None:
        return as_percent(score.robust)
    low, high = score.robust_interval
    return f"{as_percent(score.robust)} (95% interval {100 * low:.1f} to {100 * high:.1f})"


def _headline(scores: tuple[MethodScore, ...]) -> str:
    best = max(score.robust for score in scores)
    leaders = [score.title for score in scores if score.robust == best]
    if len(leaders) > 1:
        return f"{_join(leaders)} are equally robust: {as_percent(best)} under attack."
    return f"{leaders[0]} is the most robust: {as_percent(best)} under attack."


def _ranking(scores: tuple[MethodScore, ...]) -> str:
    ranked = sorted(scores, key=lambda score: -score.robust)
    robust = _join([f"{score.title} {_with_interval(score)}" for score in ranked])
    clean = _join([f"{score.title} {as_percent(score.clean)}" for score in ranked])
    return f"Robust accuracy, best first: {robust}. Clean accuracy in the same order: {clean}."


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def compare(adv: MethodScore, early: MethodScore, pair: Pair | None = None) -> str:
    """Say whether Adv-NTK beats the early-stopped NTK under attack, and whether that is more than chance.

    The interval of the difference on the same images decides; without it, as in results of earlier versions,
    intervals of the two accuracies that overlap are called inconclusive.
    """
    gain, clean = adv.robust - early.robust, adv.clean - early.clean
    trade = ""
    if clean != 0:
        trade = f" Its clean accuracy is {as_points(clean)} {'higher' if clean > 0 else 'lower'}."
    if gain == 0:
        return f"Adv-NTK is no better than the early-stopped NTK here: both keep {as_percent(adv.robust)}.{trade}"
    distance = f"{as_points(gain)} {'above' if gain > 0 else 'below'} the early-stopped NTK"
    opening = f"Adv-NTK is {distance}" if gain > 0 else f"Adv-NTK is not better here: it is {distance}"
    if pair is not None:
        verdict = _verdict(pair, gain)
    elif adv.robust_interval is None or early.robust_interval is None:
        verdict = "; no intervals were recorded, so this run cannot tell the difference from chance."
    elif disjoint(adv.robust_interval, early.robust_interval):
        verdict = ", and the two 95% intervals do not overlap."
    elif gain > 0:
        verdict = (
            ", but the two 95% intervals overlap: this run alone does not show "
            "that a time for each sample beats one time for all."
        )
    else:
        verdict = ", and the two 95% intervals overlap."
    return f"{opening}{verdict}{trade}"


def _verdict(pair: Pair, gain: float) -> str:
    """What the same images say of the difference, after "is so many points above"."""
    measured = f" in robust accuracy (95% interval {pair.robust.ends}, on the same {pair.n_test:,} images)"
    if pair.robust.beyond_chance:
        return f"{measured}, more than chance."
    if gain > 0:
        return (
            f"{measured}, which may be chance: this run alone does not show that a time for each sample beats one "
            "time for all."
        )
    return f"{measured}, which may be chance."


def degeneration(curve: Curve) -> str:
    """Say what the curve shows: robust accuracy at the best finite t against t = infinity."""
    robust = np.asarray(curve.robust, dtype=np.float64)
    if not np.isfinite(robust).any():
        return "The degeneration curve holds no finite robust accuracy."
    at = int(np.nanargmax(robust))
    peak, end = float(robust[at]), curve.robust_ntk
    best_t = as_number(float(curve.times[at]))
    if peak <= end:
        return (
            f"No degeneration at these times: robust accuracy is highest at t = ∞ ({as_percent(end)}); "
            f"the best finite t, {best_t}, reaches {as_percent(peak)}."
        )
    numbers = f"{as_percent(peak)} at t = {best_t} against {as_percent(end)} at t = ∞"
    if not disjoint(wilson_interval(peak, curve.n_test), wilson_interval(end, curve.n_test)):
        return (
            f"Degeneration is not shown: robust accuracy is {numbers}, a loss of {as_points(peak - end)} "
            "inside the 95% intervals."
        )
    at_peak = float(curve.clean[at])
    drift = "rises" if curve.clean_ntk > at_peak else "falls" if curve.clean_ntk < at_peak else "stays"
    clean = f"from {as_percent(at_peak)} to" if drift != "stays" else "at"
    return (
        f"Training for ever costs {as_points(peak - end)} of robust accuracy: {numbers}, while clean accuracy "
        f"{drift} {clean} {as_percent(curve.clean_ntk)}. The peak is read off the test images, "
        "so it flatters a little."
    )


def attack_words(results: dict[str, Any]) -> str:
    """The attack of ``results.json`` in words, with whatever of its settings is present."""
    attack = results.get("attack")
    if not isinstance(attack, dict):
        return "not recorded"
    words = str(attack.get("name", "unnamed"))
    if attack.get("steps") is not None:
        words += f", {as_number(attack['steps'])} steps"
        if attack.get("step_size") is not None:
            words += f" of {as_radius(attack['step_size'])}"
    if attack.get("radius") is not None:
        norm = _NORMS.get(str(attack.get("norm")), str(attack.get("norm", "")))
        words += f", {norm} radius {as_radius(attack['radius'])}".replace(",  ", ", ")
    return words


def _attack(results: dict[str, Any], scores: tuple[MethodScore, ...]) -> str:
    """Say whether every perturbation kept to the radius."""
    attack = results.get("attack")
    attack = attack if isinstance(attack, dict) else {}
    used = [score.max_perturbation for score in scores if score.max_perturbation is not None]
    if is_finite_number(attack.get("max_perturbation")):
        used.append(float(attack["max_perturbation"]))
    if not used:
        return "The largest perturbation used was not recorded."
    largest = max(used)
    if not is_finite_number(attack.get("radius")):
        return f"The largest perturbation used was {as_radius(largest)}; the radius was not recorded."
    radius = float(attack["radius"])
    if largest <= radius + _SLACK:
        used_words, radius_words = as_radius(largest), as_radius(radius)
        return f"The largest perturbation used was {used_words}, within the radius {radius_words} (pixel range 1)."
    return (
        f"The largest perturbation used was {as_number(largest)}, beyond the radius {as_radius(radius)}: "
        "do not compare these numbers with those of an attack that keeps to it."
    )
