"""`advntk gram`: the first stage of a run alone, and the checks of what it stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from advntk_dist.config import RunConfig
from advntk_dist.gram import GramStore, builder_lock, invalidate, verify_gram
from advntk_dist.pipeline.events import EventLog
from advntk_dist.pipeline.rundir import RunDirectory
from advntk_dist.progress import Display
from advntk_dist.storage.location import Location

if TYPE_CHECKING:
    from advntk_dist.gram.audit import AuditReport
    from advntk_dist.gram.verify import VerifyReport


@dataclass(frozen=True)
class Verdict:
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


def build_gram_only(
    config: RunConfig, out: str | Location, *, address: str | None = None, display: Display | None = None
) -> GramStore:
    """The first stage alone: the Gram store that :func:`advntk_dist.pipeline.run.run` would build; errors as there."""
    from advntk_dist.pipeline.problem import Problem
    from advntk_dist.pipeline.stages import Stages

    folder = RunDirectory.at(out)
    problem = Problem(config)
    with folder.claimed(config):
        return Stages(problem, folder, EventLog(folder.events), display or Display(), address).gram()


def open_store(path: Location) -> GramStore:
    """The store at a path, or in the run directory at a path; errors as :meth:`GramStore.open`."""
    return GramStore.open(path / "gram.zarr" if (path / "gram.zarr").is_dir() else path)


def verify(path: Location, *, tiles: int = 4, seed: int = 0, passes: int = 20) -> Verdict:
    """Check every stored byte, then compare a seeded sample of tiles with float64.

    Damaged tiles lose their commit records, so that the next build computes just these again.

    Parameters
    ----------
    path
        A run directory, or a store. Only a run directory says which images a store was built from.
    tiles, seed, passes
        Sample and Lanczos steps, see :func:`advntk_dist.gram.audit.audit_gram`; no audit with 0 tiles.

    Raises
    ------
    StoreDamagedError
        If a tile is damaged.
    StoreBusyError
        If a tile is damaged and another process is building the store.
    """
    store = open_store(path)
    report = verify_gram(store)
    if report.damaged:
        with builder_lock(store.path):
            invalidate(store, [damaged[:3] for damaged in report.damaged])
        report.raise_if_damaged(store.path)
    if not tiles:
        return Verdict(store, report, why_not="not asked for")
    if report.missing:
        return Verdict(store, report, why_not="the store is not complete")
    folder = RunDirectory(path)
    if store.path == path or not folder.config.is_file():
        return Verdict(store, report, why_not="only a run directory knows the images; give that")
    from advntk_dist.gram.audit import audit_gram
    from advntk_dist.pipeline.problem import Problem

    images = Problem(folder.stored_config()).train.raw
    return Verdict(store, report, audit_gram(store, images, tiles=tiles, seed=seed, passes=passes))
