"""What a run has committed, read without computing anything: outcomes of its images, results, what is missing."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from advntk_dist.config import RunConfig
from advntk_dist.errors import StoreDamagedError, StoreMismatchError
from advntk_dist.evaluation.radius_curve import COLUMNS, RadiusCurve
from advntk_dist.evaluation.statistics import MethodResult, paired_differences
from advntk_dist.pipeline.directory import RunDirectory, digest, load_images, require_same_images
from advntk_dist.pipeline.worst_case import AttackSet, WorstCase, keeps, read_attack_sets, read_outcome, read_table
from advntk_dist.results import schema, sealed
from advntk_dist.results.schema import ADV_NTK
from advntk_dist.storage import Records
from advntk_dist.storage.records import read_group, read_seal

log = logging.getLogger(__name__)

Counted = Mapping[str, set[str]]
"""Sets of attacks by label, with the methods whose outcomes under them count."""


@dataclass(frozen=True)
class RunOutcomes:
    """Outcomes of a run under its own attack, and what they are outcomes of.

    Attributes
    ----------
    images
        What decides on the test images: equal where two runs have the same.
    validation, curve
        Of uniform training times, on validation images and on the test images of the degeneration curve.
    chosen
        Index of the time of early stopping: the most robust one on validation images.
    methods
        The methods of results.json, on all test images.
    radii
        Their robustness over the radius, on the test images of the degeneration curve.
    others
        Further attacks that test images have met.
    """

    images: dict[str, Any]
    validation: list[MethodResult]
    curve: list[MethodResult]
    chosen: int
    methods: dict[str, MethodResult]
    radii: dict[str, RadiusCurve]
    others: tuple[AttackSet, ...] = ()

    def worst_case(self, config: RunConfig, counted: Counted | None = None) -> WorstCase:
        """The worst case over the run's own attack and the others, or those of them that are counted."""
        own = AttackSet(config.attack.label, (config.attack.described(),), self.methods)
        others = self.others if counted is None else [s.of(counted[s.label]) for s in self.others if s.label in counted]
        return WorstCase.of(own, others, keeps_own=keeps(own.attacks[0], config.attack))

    def as_dict(self, config: RunConfig, counted: Counted | None = None) -> dict[str, Any]:
        """What results.json says of them: attack, methods, paired, worst case (of what is counted) and curve."""
        train, times = config.train, config.evaluation.times
        rows = {name: result.as_dict() for name, result in self.methods.items()}
        rows["early_stopped"] |= {
            "t": times[self.chosen],
            "validation_robust": self.validation[self.chosen].robust.value,
        }
        rows[ADV_NTK] |= {"recipe": train.recipe, "steps": train.steps, "lr": train.lr}
        largest = max(result.max_perturbation for result in self.methods.values())
        return {
            "attack": config.attack.described() | {"max_perturbation": largest},
            "methods": rows,
            "paired": paired_differences(self.methods),
            "worst_case": self.worst_case(config, counted).as_dict(),
            "curve": {
                "times": list(times),
                "validation": [result.as_dict() for result in self.validation],
                "test": [result.as_dict() for result in self.curve],
            },
            "radius": {
                "images": self.curve[0].clean.n,
                "radius": config.attack.radius,
                "norm": config.attack.norm,
                "methods": {name: curve.as_dict() for name, curve in self.radii.items()},
            },
        }


def most_robust(validation: list[MethodResult]) -> int:
    """Index of the time at which a run stops early: the first of the most robust ones on validation images."""
    return max(range(len(validation)), key=lambda i: (validation[i].robust.value, -i))


def outcome_names(config: RunConfig, stopped: int) -> dict[str, str]:
    """The name of each method's committed outcomes; ``stopped`` is the index of the time of early stopping."""
    return {
        "ntk": f"test_t{len(config.evaluation.times)}",
        "early_stopped": f"test_t{stopped}",
        ADV_NTK: f"test_{ADV_NTK}",
    }


def curve_name(config: RunConfig) -> tuple[str, int]:
    """The name of the outcomes of the degeneration curve, and how many test images it has."""
    m = config.evaluation.curve
    return ("test", config.data.n_test) if m is None or m == config.data.n_test else (f"curve{m}", m)


def radii_name(outcomes: str, images: int) -> str:
    """The name of the committed rows over the radius, of a method whose outcomes have this name."""
    return f"{outcomes}_radii{images}"


def read_outcomes(folder: RunDirectory, config: RunConfig) -> RunOutcomes | None:
    """Outcomes under the run's own attack; None where one of them is not committed, as beside a copied report.

    Raises
    ------
    StoreMismatchError
        If those that are there are of another configuration.
    StoreError
        If something else is in their place.
    """
    place = folder.evaluation / config.attack.label
    if not (place.exists() and folder.coefficients.exists()):
        return None
    try:
        solved, (group, identity) = read_group(folder.coefficients)[0], read_group(place)
    except StoreDamagedError as error:
        log.warning("%s", error)
        return None
    if identity.get("configuration") != digest(config):
        raise StoreMismatchError(str(place), "configuration", identity.get("configuration"), digest(config))
    times, tests, (name, m) = range(len(config.evaluation.times)), config.data.n_test, curve_name(config)
    uniform = [read_seal(solved, "uniform", len(times) + 1, i) for i in range(len(times) + 1)]
    validation = [read_outcome(group, f"validation_t{i}", config.data.n_val, uniform[i]) for i in times]
    curve = [read_outcome(group, f"{name}_t{i}", m, uniform[i]) for i in times]
    known = [result for result in validation if result is not None]
    if len(known) < len(validation):
        return None
    chosen = most_robust(known)
    names = outcome_names(config, chosen)
    seals = {"ntk": uniform[-1], "early_stopped": uniform[chosen], ADV_NTK: read_seal(solved, ADV_NTK, 1, 0)}
    found = {method: read_outcome(group, name, tests, seals[method]) for method, name in names.items()}
    on_curve = [result for result in curve if result is not None]
    methods = {method: result for method, result in found.items() if result is not None}
    tables = {method: read_table(group, radii_name(name, m), m, seals[method]) for method, name in names.items()}
    radii = {
        method: RadiusCurve(table, config.attack.radius, config.attack.norm)
        for method, table in tables.items()
        if table is not None and table.shape[1] == COLUMNS
    }
    if len(on_curve) < len(curve) or len(methods) < len(found) or len(radii) < len(tables):
        return None
    split = config.data.model_dump(mode="json", exclude={"name", "path"})
    images = {"data": identity["data"], "split": split}
    owner = {key: identity[key] for key in ("configuration", "data")}
    others = read_attack_sets(folder.evaluation, owner, config.attack, names, seals, tests)
    return RunOutcomes(images, known, on_curve, chosen, methods, radii, tuple(others))


def read_results(folder: RunDirectory, config: RunConfig) -> tuple[dict[str, Any] | None, RunOutcomes | None]:
    """What results.json says, held against the committed outcomes; and those. None for what is not there.

    Raises
    ------
    StoreDamagedError
        If they differ, which names the first field that does, or if the file was changed in any other place.
    StoreMismatchError
        If the file or the outcomes are of another format or configuration.
    """
    outcomes = read_outcomes(folder, config)
    stored = sealed.parsed(folder.results, folder.remedy)
    if stored is None or outcomes is None:
        return folder.read_results(), outcomes
    counted = _counted(stored, config.attack.label, outcomes.methods)
    owner = {"configuration": digest(config), "data": outcomes.images["data"]}
    expected = owner | {"network": config.network.name} | config.data.model_dump(include={"n_train", "n_val", "n_test"})
    expected = json.loads(json.dumps(expected | outcomes.as_dict(config, counted)))
    there = {s.label: s.methods.keys() for s in outcomes.others}
    if gone := [label for label, methods in (counted or {}).items() if not methods <= there.get(label, set())]:
        del expected["worst_case"]
        log.warning(
            "%s: outcomes under further attacks are not whole any more, and do not count: %s",
            folder.evaluation,
            ", ".join(gone),
        )
    place = sealed.first_difference(stored, expected)
    if place is not None:
        raise StoreDamagedError(f"{folder.results}: {place}, which the committed outcomes give; {folder.remedy}")
    results = folder.read_results()
    assert results is not None
    worst = json.loads(json.dumps(outcomes.worst_case(config).as_dict()))
    return results | {"worst_case": worst}, outcomes


def _counted(stored: dict[str, Any], own: str, methods: Collection[str]) -> Counted | None:
    """The methods of each set of further attacks that results.json counts; None where it was changed, or says none."""
    if not sealed.is_as_written(stored):
        return None
    worst = stored.get("worst_case")
    sets, alone = (worst.get("sets"), worst.get("alone")) if isinstance(worst, dict) else (None, None)
    if not isinstance(sets, list) or not isinstance(alone, list):
        return None
    rows: list[tuple[Any, Any]] = [(label, method) for label in sets if label != own for method in methods]
    rows += [(row.get("set"), row.get("method")) for row in alone if isinstance(row, dict)]
    if not all(isinstance(word, str) for row in rows for word in row):
        return None
    found: dict[str, set[str]] = {}
    for label, method in rows:
        found.setdefault(label, set()).add(method)
    return found


def refresh_results(folder: RunDirectory, config: RunConfig, say: Callable[[str], None]) -> None:
    """Let the results.json of a finished run count every attack that its outcomes hold; errors as of read_results.

    ``say`` is told where its worst case rests on fewer images than before.
    """
    results, _ = read_results(folder, config)
    before = folder.read_results()
    if results is None or before is None or results == before:
        return
    sealed.write(folder.results, schema.RunResults, results)
    now, then = (r["worst_case"]["images"] for r in (results, before))
    if now < then:
        say(
            f"the worst case over all attacks rests on the first {now:,} test images now, which have met them all, "
            f"before on {then:,}"
        )


def finished_run(folder: RunDirectory, config: RunConfig) -> dict[str, Any] | None:
    """The results of a run that has everything that it should have; None where something is to be done yet.

    Without any outcomes, as in a copy of the report and the results, the results are what there is. Errors as of
    :func:`read_results`.
    """
    try:
        results, outcomes = read_results(folder, config)
    except StoreDamagedError as error:
        if read_outcomes(folder, config) is None:  # both are damaged: the results follow from what is computed again
            log.warning("%s", error)
            return None
        raise
    if results is None or not folder.report.exists():
        return None
    if not (folder.evaluation.exists() or folder.coefficients.exists() or folder.train.exists()):
        return results  # a copy of the report and the results
    if outcomes is None or not _has_met_its_tier(config, results, outcomes):
        return None
    return results if _is_solved(folder, config) else None


def finished_results(folder: RunDirectory, config: RunConfig) -> dict[str, Any] | None:
    """The results of a finished run of these images, found without loading JAX or Ray; None where it is not finished.

    Raises
    ------
    StoreError
        If stored data are damaged, or belong to another configuration or to other images.
    DatasetError
        If the images are not there any more.
    """
    if not folder.config.exists():
        return None
    with folder.claimed(config, reading=True):
        results = finished_run(folder, config)
        if results is not None:
            require_same_images(folder, load_images(config))
        return results


def tier_label(config: RunConfig, tier: str, images: int | str) -> str:
    """Name of the outcomes of so many test images under a tier."""
    a = config.attack
    return f"{tier}_{a.norm}_r{a.radius:.12g}_seed{a.seed}_images{images}"


def _has_met_its_tier(config: RunConfig, results: dict[str, Any], outcomes: RunOutcomes) -> bool:
    """Whether every method has met the tier that ends the run, or nothing is to be met."""
    wanted = config.final_tier
    if wanted is None:
        return True
    tier, images = wanted
    if config.evaluation.tier == "auto" and results["tier"].get("images") == images and not results["tier"]["worth"]:
        return True
    return any(
        found.label.startswith(tier_label(config, tier, "")) and found.images >= images
        for found in outcomes.others
        if found.methods.keys() == outcomes.methods.keys()
    )


def _is_solved(folder: RunDirectory, config: RunConfig) -> bool:
    """Whether every training step and every solution is committed and sound."""
    try:
        trained, solved = read_group(folder.train)[0], read_group(folder.coefficients)[0]
    except StoreDamagedError as error:
        log.warning("%s", error)
        return False
    of = read_seal(trained, "varpi", config.train.steps + 1, config.train.steps)
    tables = [Records.stored(trained, name) for name in ("varpi", "history", "state")]
    names = ("uniform", "uniform_solves", "spectrum", f"{ADV_NTK}_solve")
    tables += [*(Records.stored(solved, name) for name in names), Records.stored(solved, ADV_NTK, of=of)]
    return all(table is not None and table.read_all() is not None for table in tables)
