"""The attacks of results.json in words, and the methods under the worst of all that a run has met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advntk_dist.report.judgements import title_of
from advntk_dist.text import as_number, as_percent, as_radius

TYPESET = {"linf": "l∞"}
"""Norms as a page shows them; a terminal shows their names."""


def worst_results(results: dict[str, Any]) -> dict[str, Any]:
    """``results`` with the methods and their differences under the worst of all attacks that the run has met.

    Without a worst case among the results, as where there was one attack only, they are what they are.
    """
    worst = results.get("worst_case")
    if worst is None:
        return results
    methods = {name: results["methods"].get(name, {}) | row for name, row in worst["methods"].items()}
    return results | {"methods": methods, "paired": worst["paired"]}


def attacks_met(results: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Every attack that all methods have met, the run's own first."""
    worst = results.get("worst_case")
    return (results["attack"],) if worst is None else tuple(worst["attacks"])


def under_attack(results: Mapping[str, Any], norms: Mapping[str, str] = TYPESET) -> str:
    """What the robust accuracies of :func:`worst_results` are under, to follow "under"."""
    met = attacks_met(results)
    if len(met) <= 1:
        return attack_words(met[0], norms)
    images = f"{results['worst_case']['images']:,} test images"
    return f"the worst of {len(met)} attacks on each of {images} ({ball_words(met[0], norms)})"


def attacks_words(attacks: Sequence[Mapping[str, Any]], norms: Mapping[str, str] = TYPESET) -> list[str]:
    """Each attack in full; of several, norm and radius are said elsewhere, and seeds where nothing else differs."""
    words = [attack_words(attack, norms, ball=len(attacks) == 1) for attack in attacks]
    return [
        w if words.count(w) == 1 else f"{w.removesuffix(')')}, seed {a.get('seed')})"
        for w, a in zip(words, attacks, strict=True)
    ]


def attack_words(attack: Mapping[str, Any], norms: Mapping[str, str] = TYPESET, *, ball: bool = True) -> str:
    """An attack in full: name and loss, steps or queries, starts, norm and radius, so far as they are known."""
    words, more = str(attack["name"]), list[str]()
    if attack.get("part") is not None:
        words += f", {attack.get('version', '')} version, {attack['part']}"
    if attack.get("loss") is not None:
        words += f" on {str(attack['loss']).replace('-', ' ')}"
    if attack.get("queries") is not None:
        more.append(f"{as_number(attack['queries'])} queries")
    if attack.get("steps") is not None:
        length = "" if attack.get("step_size") is None else f" of {as_radius(attack['step_size'])}"
        more.append(f"{_counted(attack['steps'], 'step')}{length}")
    if attack.get("targets") is not None:
        more.append(_counted(attack["targets"], "target"))
    if attack.get("restarts") is not None:
        more.append(_counted(attack["restarts"], "start"))
    if ball and attack.get("radius") is not None:
        more.append(ball_words(attack, norms))
    return f"{words} ({', '.join(more)})" if more else words


def _counted(number: Any, what: str) -> str:
    return f"{as_number(number)} {what}{'' if number == 1 else 's'}"


def ball_words(attack: Mapping[str, Any], norms: Mapping[str, str] = TYPESET) -> str:
    """Norm and radius of an attack, as "linf radius 8/255"."""
    norm = attack.get("norm", "")
    return f"{norms.get(norm, norm)} radius {as_radius(attack['radius'])}".strip()


def alone_words(results: Mapping[str, Any], norms: Mapping[str, str] = TYPESET) -> list[str]:
    """Sentences on attacks that only some methods have met, which no ranking may rest on."""
    rows = (results.get("worst_case") or {}).get("alone", ())
    return [
        f"{title_of(row['method'])} has met further attacks, which not all methods have: {as_percent(row['robust'])} "
        f"of {row['n_test']:,} test images are robust under all that it has met. They are "
        f"{'; '.join(attacks_words(row['attacks'], norms))}."
        for row in rows
    ]
