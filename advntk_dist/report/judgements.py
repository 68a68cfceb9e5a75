"""What a report may claim: who leads beyond chance, what guessing alone gets, what a reader must be warned of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from advntk_dist.report.inputs import DegenerationCurve, IntArray, KernelSpectrum
from advntk_dist.results.schema import MethodRow, PairRow, RunMethodRow, RunResults
from advntk_dist.text import as_number, as_percent, beyond_chance, disjoint, join, with_interval

_TITLES = {
    "ntk": "NTK",
    "early_stopped": "Early-stopped NTK",
    "adv_ntk": "Adv-NTK",
    "finite_at": "Finite AT, last step",
    "finite_at_best": "Finite AT, best step",
}


class MethodScore(MethodRow):
    """The row of a method, with its key in the file, what it is called, and how it was made."""

    key: str
    title: str
    detail: str


def method_scores(
    methods: Mapping[str, MethodRow], details: Mapping[str, str] | None = None
) -> tuple[MethodScore, ...]:
    """The methods of a file: those known in their usual order, then others by name; ``details`` are said of some."""
    known = [key for key in _TITLES if key in methods]
    return tuple(
        MethodScore(
            **methods[key].model_dump(include=set(MethodRow.model_fields)),
            key=key,
            title=title_of(key),
            detail=(details or {}).get(key, ""),
        )
        for key in known + sorted(methods.keys() - known)
    )


def run_scores(results: RunResults, methods: Mapping[str, MethodRow]) -> tuple[MethodScore, ...]:
    """Methods of a run under some attacks, each with how the run made it."""
    return method_scores(methods, {key: made(key, row) for key, row in results.methods.items()})


def pair_of(pairs: Sequence[PairRow], method: str, against: str) -> PairRow:
    """The difference between these two methods."""
    return next(pair for pair in pairs if (pair.method, pair.against) == (method, against))


def title_of(key: str) -> str:
    """What a method is called in a text."""
    return _TITLES.get(key, key)


def made(key: str, row: RunMethodRow) -> str:
    """How a run made a method, in words."""
    if key == "ntk":
        return "t = ∞"
    if row.t is not None:
        return f"one t = {as_number(row.t)} for all samples"
    if row.recipe is not None and row.steps is not None and row.lr is not None:
        recipe = {"paper": "the paper's recipe", "cross-fit": "cross-fit"}[row.recipe]
        return f"one time a sample; {recipe}, {row.steps} steps, lr {as_number(row.lr)}"
    return ""


@dataclass(frozen=True)
class Chance:
    """The accuracy of one answer for every image, which no attack can lower, and what that answer is."""

    level: float
    answer: str

    def __str__(self) -> str:
        """For reading."""
        return f"{as_percent(self.level)} ({self.answer})"


def chance_of(classes: int, y_test: IntArray) -> Chance:
    """The share of the largest class among the test images."""
    share = float(np.bincount(np.asarray(y_test)).max() / np.size(y_test))
    return Chance(share, f"one answer for all, the largest of {classes} classes")


def told_apart(one: MethodScore, other: MethodScore, pairs: Iterable[PairRow] = ()) -> bool:
    """Whether two robust accuracies differ beyond chance.

    The interval of the difference on the same images decides; without it, whether the intervals of the two overlap.
    """
    for pair in pairs:
        if {pair.method, pair.against} == {one.key, other.key}:
            return beyond_chance(pair.robust_interval)
    return disjoint(one.robust_interval, other.robust_interval)


def leaders(scores: Sequence[MethodScore], pairs: Sequence[PairRow] = ()) -> tuple[MethodScore, ...]:
    """The method with the highest robust accuracy, then those that are not told apart from it."""
    first, *rest = sorted(scores, key=lambda score: -score.robust)
    return (first, *(score for score in rest if not told_apart(first, score, pairs)))


def highlighted(scores: Sequence[MethodScore], pairs: Sequence[PairRow] = ()) -> frozenset[str]:
    """Titles to set off as the best: none where no method is told apart from the best."""
    best = leaders(scores, pairs)
    return frozenset(score.title for score in best) if len(best) < len(scores) else frozenset()


class MethodsTable(NamedTuple):
    """Methods under some attacks, their differences on the same images, and the titles to set off."""

    scores: Sequence[MethodScore]
    pairs: Sequence[PairRow]
    best: frozenset[str]


def methods_table(scores: Sequence[MethodScore], pairs: Sequence[PairRow] = ()) -> MethodsTable:
    """The table of methods, with those set off that :func:`highlighted` names."""
    return MethodsTable(scores, pairs, highlighted(scores, pairs))


def headline(scores: Sequence[MethodScore], pairs: Sequence[PairRow], chance: Chance, attack: str) -> str:
    """One sentence that names the most robust method and the attack, and claims no more than the intervals bear out."""
    first, *level = leaders(scores, pairs)
    best = with_interval(first.robust, first.robust_interval)
    if not any(above_chance(score, chance) for score in scores):
        return f"No method is above chance under {attack}: {best} at best, where chance is {as_percent(chance.level)}."
    if not level:
        return f"{first.title} {'is the most robust:' if len(scores) > 1 else 'keeps'} {best} under {attack}."
    if all(score.robust == first.robust for score in level):
        return f"{join([s.title for s in (first, *level)])} keep the same {best} under {attack}."
    others = join([f"{score.title} ({as_percent(score.robust)})" for score in level])
    return (
        f"{first.title} keeps {best} under {attack}; {others} {'are' if len(level) > 1 else 'is'} within chance of it."
    )


def above_chance(score: MethodScore, chance: Chance) -> bool:
    """Whether the interval of robust accuracy is all above chance."""
    return score.robust_interval[0] > chance.level


def warnings(
    scores: Sequence[MethodScore], chance: Chance, curve: DegenerationCurve, spectrum: KernelSpectrum
) -> tuple[str, ...]:
    """Sentences on what was not learned, and on a grid of times that ends where the choice fell.

    The plain NTK is left out: that it falls to chance and below under attack is what the method is there to mend.
    """
    found = []
    low = [s for s in scores if s.key != "ntk" and not above_chance(s, chance)]
    if low:
        robust = join([f"{s.title} {with_interval(s.robust, s.robust_interval)}" for s in low])
        found.append(f"Not above chance under attack, which is {chance}: {robust}.")
    blind = [s for s in scores if s.clean_interval[0] <= chance.level]
    if blind:
        clean = join([f"{s.title} {with_interval(s.clean, s.clean_interval)}" for s in blind])
        level = " either" if low else f", which is {chance}"
        found.append(f"Not above chance on clean images{level}: {clean}.")
    for end, name, side in ((curve.times[0], "shortest", "below"), (curve.times[-1], "longest", "above")):
        if curve.chosen_t == end:
            found.append(
                f"The chosen time is the edge of the grid, its {name}: extend evaluation.times {side} "
                f"{as_number(end)}, as a better one may lie there."
            )
            break
    if 0 < (reached := float(spectrum.eigenvalues[0]) * curve.chosen_t) < 1:
        found.append(
            f"No mode of the kernel is learned by the chosen time: the largest eigenvalue times t is "
            f"{as_number(reached)}, below 1."
        )
    return tuple(found)
