"""The worst case of all attacks that the test images of a run have met, read from what the run has committed.

Attacks of another norm or radius than the run's own do not count, nor those that leave the ball.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist.attacks import registry
from advntk_dist.config import AttackConfig
from advntk_dist.errors import StoreDamagedError, StoreMismatchError
from advntk_dist.evaluation.statistics import MethodResult, paired_differences
from advntk_dist.storage import Records
from advntk_dist.storage.paths import Location
from advntk_dist.storage.records import read_group

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class AttackSet:
    """Attacks that the first test images of a run have met one after another, or each on its own.

    Attributes
    ----------
    label
        Name of their outcomes below ``evaluation.zarr``.
    attacks
        Their settings, as JSON values.
    methods
        Outcomes of each method that has met all of them, under the worst of them.
    """

    label: str
    attacks: tuple[dict[str, Any], ...]
    methods: Mapping[str, MethodResult]

    @property
    def images(self) -> int:
        """Number of test images that every method here has met them on."""
        return min((result.clean.n for result in self.methods.values()), default=0)

    def of(self, methods: Collection[str]) -> AttackSet:
        """The same of some methods."""
        return replace(self, methods={name: result for name, result in self.methods.items() if name in methods})

    def within(self, other: AttackSet) -> bool:
        """Whether the other set tells all that this one tells of its methods."""
        same = all(attack in other.attacks for attack in self.attacks)
        return same and other.images >= self.images and self.methods.keys() <= other.methods.keys()


@dataclass(frozen=True, eq=False)
class WorstCase:
    """Methods of a run under the worst of several sets of attacks, image by image.

    Attributes
    ----------
    sets
        What every method has met; the run's own attack is the first, if it keeps to the ball.
    alone
        What only some methods have met.
    """

    sets: tuple[AttackSet, ...]
    alone: tuple[AttackSet, ...]

    @classmethod
    def of(cls, own: AttackSet, others: Sequence[AttackSet], *, keeps_own: bool = True) -> WorstCase:
        """The worst case over a run's own attack and all others; what another set includes is left out.

        Where the own attack does not keep to the ball, it counts only as long as no other does for all methods.
        """
        complete = any(found.methods.keys() == own.methods.keys() for found in others)
        common, alone = [own] if keeps_own or not complete else [], list[AttackSet]()
        for found in sorted(others, key=lambda s: (-s.images, -len(s.attacks), s.label)):
            if not found.methods or any(found.within(kept) for kept in common):
                continue
            (common if found.methods.keys() == own.methods.keys() else alone).append(found)
        return cls(tuple(common), tuple(alone))

    @property
    def images(self) -> int:
        """Number of test images, the first ones, that have met all attacks."""
        return min(found.images for found in self.sets)

    @property
    def attacks(self) -> tuple[dict[str, Any], ...]:
        """Every attack once, in the order of the sets."""
        found: list[dict[str, Any]] = []
        for attack in (a for s in self.sets for a in s.attacks):
            if attack not in found:
                found.append(attack)
        return tuple(found)

    @property
    def methods(self) -> dict[str, MethodResult]:
        """Each method on the images that have met all attacks: robust where none of them broke the image."""
        return {name: _worst([s.methods[name] for s in self.sets]) for name in self.sets[0].methods}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as results.json has them."""
        methods = self.methods
        return {
            "images": self.images,
            "sets": [s.label for s in self.sets],
            "attacks": list(self.attacks),
            "methods": {name: result.as_dict() for name, result in methods.items()},
            "paired": paired_differences(methods),
            "alone": [self._one(found, name) for found in self.alone for name in found.methods],
        }

    def _one(self, found: AttackSet, name: str) -> dict[str, Any]:
        """One method under what it has met and others have not, together with what all have met."""
        result = _worst([*(s.methods[name] for s in self.sets), found.methods[name]])
        row = result.as_dict()
        kept = {key: row[key] for key in ("robust", "robust_interval", "n_test")}
        return {"method": name, "set": found.label, "attacks": list(found.attacks)} | kept


def _worst(results: Sequence[MethodResult]) -> MethodResult:
    n = min(result.clean.n for result in results)
    robust = np.logical_and.reduce([result.robust_right[:n] for result in results])
    return MethodResult.of(results[0].clean_right[:n], robust, max(result.max_perturbation for result in results))


def read_attack_sets(
    place: Location,
    owner: Mapping[str, Any],
    own: AttackConfig,
    names: Mapping[str, str],
    seals: Mapping[str, int],
    images: int,
) -> list[AttackSet]:
    """Sets of attacks below ``evaluation.zarr``, the run's own left out; methods whose outcomes are not whole are, too.

    Parameters
    ----------
    place
        ``evaluation.zarr``.
    owner
        What the identity of each set must say: the configuration and the data.
    own
        The run's own attack, whose norm and radius the others must keep.
    names, seals
        Of each method: the name of its outcomes under a single attack, and the seal of its coefficients.
    images
        Number of test images that a single attack meets.
    """
    found: list[AttackSet] = []
    entries: list[Location] = list(place.iterdir()) if place.is_dir() else []
    for entry in sorted(entries, key=lambda entry: entry.name):
        if entry.name == own.label or not (entry / "zarr.json").exists():
            continue
        try:
            group, identity = read_group(entry)
        except StoreDamagedError as error:
            log.warning("%s", error)
            continue
        named = "images" not in identity or entry.name.endswith(f"_images{identity['images']}")
        if not named or any(identity.get(key) != value for key, value in owner.items()):
            continue
        attacks = identity.get("attacks", [identity.get("attack")])
        if not all(keeps(attack, own) for attack in attacks):
            continue
        called, methods = identity.get("called"), {}
        for method, seal in seals.items():
            if called is None:
                result = read_outcome(group, names[method], images, seal)
            else:
                result = _read_sequence(group, method, called, identity.get("images"), seal)
            if result is not None:
                methods[method] = result
        if methods:
            found.append(AttackSet(entry.name, tuple(attacks), methods))
    return found


def keeps(attack: dict[str, Any], own: AttackConfig) -> bool:
    """Whether an attack keeps to the norm and the radius of the run's own."""
    held = attack["norm"] == own.norm and math.isclose(attack["radius"], own.radius, rel_tol=1e-9)
    return held and registry.keeps_ball(attack["name"])


@contextmanager
def foreign_outcomes_named(place: Location) -> Iterator[None]:
    """Raise StoreDamagedError, with a remedy that works here, for outcomes of anything else at a place of outcomes."""
    try:
        yield
    except StoreMismatchError as error:
        raise StoreDamagedError(
            f"{place}: holds outcomes of something else ({error.field} is {error.stored!r}, not {error.requested!r}); "
            "move it away, and the same command computes its own again"
        ) from error


def read_outcome(group: zarr.Group, name: str, images: int, seal: int) -> MethodResult | None:
    """Outcomes of so many images under one attack; None where they are not whole, or of other coefficients."""
    table = read_table(group, name, images, seal)
    return None if table is None else MethodResult.of(table[:, 0], table[:, 1], float(table[:, 2].max()))


def _read_sequence(
    group: zarr.Group, method: str, called: Sequence[str], images: int | None, seal: int
) -> MethodResult | None:
    """The same under a sequence of attacks."""
    tables = [read_table(group, f"{method}_{name}", images, seal) for name in ("clean", *called)]
    whole = [table for table in tables if table is not None]
    if len(whole) < len(tables):
        return None
    clean, *attacked = whole
    right = clean[:, 0] > 0
    robust = np.logical_and.reduce([right, *(table[:, 0] > 0 for table in attacked)])
    return MethodResult.of(right, robust, max(float(table[:, 1].max()) for table in attacked))


def read_table(group: zarr.Group, name: str, images: int | None, seal: int) -> NDArray[np.float64] | None:
    """The rows of so many images; None where they are not whole, or of other coefficients."""
    stored = Records.stored(group, name, of=seal)
    return None if stored is None or stored.rows != images else stored.read_all()
