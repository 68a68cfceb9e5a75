"""`advntk gram`: the first stage of a run alone, and the checks of what it stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from advntk_dist.config import RunConfig
from advntk_dist.errors import StoreDamagedError
from advntk_dist.gram import GramStore, invalidate, verify_gram
from advntk_dist.pipeline.directory import RunDirectory, changed_images_named
from advntk_dist.progress import Display
from advntk_dist.storage.locks import builder_lock
from advntk_dist.storage.paths import Location

if TYPE_CHECKING:
    from advntk_dist.gram.verify import VerifyReport
    from advntk_dist.operators.audit import AuditReport


@dataclass(frozen=True)
class VerifyResult:
    """What was found in a store: of its bytes, and of its values where they were audited.

    Attributes
    ----------
    bytes
        The check of every byte.
    values
        The comparison with float64; None if it was not made.
    why_not
        Why it was not made.
    """

    store: GramStore
    bytes: VerifyReport
    values: AuditReport | None = None
    why_not: str = ""


def _missing(store: GramStore) -> str:
    """The first tiles that are not committed."""
    done = store.committed()
    places = [f"({t.i}, {t.j})" for t in store.grid if not done[t.i, t.j]]
    return ", ".join(places[:5]) + (f" and {len(places) - 5} more" if len(places) > 5 else "")


def build_gram_only(
    config: RunConfig, out: str | Location, *, address: str | None = None, display: Display | None = None
) -> GramStore:
    """The first stage alone: the Gram store that :func:`advntk_dist.pipeline.run.run` would build; errors as there."""
    from advntk_dist.pipeline.context import Problem, RunContext
    from advntk_dist.pipeline.stages import gram

    folder = RunDirectory.at(out)
    problem, shown = Problem(config), display or Display()
    with folder.claimed(config):
        for line in problem.duplicates.lines():
            shown.say(line)
        with RunContext(problem, folder, shown, address=address) as context:
            return gram(context)


def open_store(path: Location) -> GramStore:
    """The store at a path, or in the run directory at a path; errors as :meth:`GramStore.open`."""
    return GramStore.open(path / "gram.zarr" if (path / "gram.zarr").is_dir() else path)


def verify(
    path: Location, *, tiles: int = 4, seed: int = 0, passes: int = 20, limit: float | None = None
) -> VerifyResult:
    """Check every stored byte, then compare a seeded sample of tiles with float64.

    Damaged tiles lose their commit records, so that the next build computes just these again.

    Parameters
    ----------
    path
        A run directory, or a store. Only a run directory says which images a store was built from.
    tiles, seed, passes, limit
        Sample, Lanczos steps and what passes for rounding, see :func:`advntk_dist.operators.audit.audit_gram`; no audit
        with 0 tiles. Values that are off by more are in the verdict, whose ``values.raise_if_wrong`` raises.

    Raises
    ------
    StoreDamagedError
        If a tile is damaged; or if one is missing of a matrix that a run was done with. A store whose building has
        not come to its end is sound as far as it goes.
    StoreBusyError
        If a tile is damaged and another process is building the store.
    """
    store = open_store(path)
    report = verify_gram(store)
    if report.damaged:
        with builder_lock(store.path):
            invalidate(store, [damaged[:3] for damaged in report.damaged])
    report.raise_if_damaged(store.path)
    folder = RunDirectory(path)
    if report.missing and folder.coefficients.exists():
        raise StoreDamagedError(
            f"{store.path}: {report.missing} tiles are missing of a matrix that the run has solved with "
            f"({_missing(store)}); `advntk gram build {folder.config} --out {path}` computes just these"
        )
    if not tiles:
        return VerifyResult(store, report, why_not="not asked for")
    if report.missing:
        return VerifyResult(store, report, why_not=f"the store is not complete, missing are {_missing(store)}")
    if store.path == path or not folder.config.is_file():
        return VerifyResult(store, report, why_not="only a run directory knows the images; give that")
    from advntk_dist.operators.audit import audit_gram
    from advntk_dist.pipeline.context import Problem

    problem = Problem(folder.stored_config())
    with changed_images_named(folder.root, problem.dataset.name):
        audited = audit_gram(store, problem.train.raw, tiles=tiles, seed=seed, passes=passes, limit=limit)
    return VerifyResult(store, report, audited)
