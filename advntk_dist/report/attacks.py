"""The attacks of results in words, as a page and a terminal say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advntk_dist.report.judgements import title_of
from advntk_dist.results.schema import WorstCaseResults
from advntk_dist.text import as_number, as_percent, as_radius

TYPESET = {"linf": "l∞"}
"""Norms as a page shows them; a terminal shows their names."""


def under_attack(met: WorstCaseResults, norms: Mapping[str, str] = TYPESET) -> str:
    """What robust accuracies are under, to follow "under"."""
    own = met.attacks[0]
    if len(met.attacks) == 1:
        return attack_words(own, norms)
    images = f"{met.images:,} test images"
    return f"the worst of {len(met.attacks)} attacks on each of {images} ({ball_words(own, norms)})"


def attacks_words(attacks: Sequence[Mapping[str, Any]], norms: Mapping[str, str] = TYPESET) -> list[str]:
    """Each attack in full; of several, norm and radius are said elsewhere, and seeds where nothing else differs."""
    words = [attack_words(attack, norms, ball=len(attacks) == 1) for attack in attacks]
    return [
        w if words.count(w) == 1 else f"{w.removesuffix(')')}, seed {a.get('seed')})"
        for w, a in zip(words, attacks, strict=True)
    ]


def attack_words(attack: Mapping[str, Any], norms: Mapping[str, str] = TYPESET, *, ball: bool = True) -> str:
    """An attack in full: name and loss, steps or queries, starts, norm and radius, so far as they are known."""
    known = {key: value for key, value in attack.items() if value is not None}
    words, more = str(known["name"]), list[str]()
    if "part" in known:
        words += f", {known.get('version', '')} version, {known['part']}"
    if "loss" in known:
        words += f" on {str(known['loss']).replace('-', ' ')}"
    if "queries" in known:
        more.append(f"{as_number(known['queries'])} queries")
    if "steps" in known:
        length = f" of {as_radius(known['step_size'])}" if "step_size" in known else ""
        more.append(f"{_counted(known['steps'], 'step')}{length}")
    more += [_counted(known[key], what) for key, what in (("targets", "target"), ("restarts", "start")) if key in known]
    if ball and "radius" in known:
        more.append(ball_words(attack, norms))
    return f"{words} ({', '.join(more)})" if more else words


def _counted(number: Any, what: str) -> str:
    return f"{as_number(number)} {what}{'' if number == 1 else 's'}"


def ball_words(attack: Mapping[str, Any], norms: Mapping[str, str] = TYPESET) -> str:
    """Norm and radius of an attack, as "linf radius 8/255"."""
    norm = attack.get("norm", "")
    return f"{norms.get(norm, norm)} radius {as_radius(attack['radius'])}".strip()


def alone_words(met: WorstCaseResults, norms: Mapping[str, str] = TYPESET) -> list[str]:
    """Sentences on attacks that only some methods have met, which no ranking may rest on."""
    return [
        f"{title_of(row.method)} has met further attacks, which not all methods have: {as_percent(row.robust)} "
        f"of {row.n_test:,} test images are robust under all that it has met. They are "
        f"{'; '.join(attacks_words(row.attacks, norms))}."
        for row in met.alone
    ]
