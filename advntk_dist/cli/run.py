"""`advntk run`, what comes before it (`presets`, `plan`), and `status` and `finite-width`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from advntk_dist.cli.options import (
    FINITE_WIDTH_SOURCE,
    SET,
    SOURCE,
    Answer,
    PlaceParameter,
    answers,
    configured,
    display,
    results_lines,
)
from advntk_dist.errors import RequestError
from advntk_dist.storage.paths import Location

if TYPE_CHECKING:
    from advntk_dist.pipeline.directory import RunDirectory


@click.command(short_help="Do the whole job, from images to a report.")
@configured(default_out=True)
@click.option("--fetch", is_flag=True, help="Download a published dataset first, where `advntk data fetch` puts it.")
@answers
def run(source: str, out: str | None, overrides: Sequence[str], address: str | None, fetch: bool) -> Answer:
    """Do the whole job: Gram matrix, training, evaluation, report. The same command resumes.

    Examples: advntk run digits --set attack.radius=0.15

    advntk run cifar10-mlp5 --fetch
    """
    from advntk_dist.config import load_config
    from advntk_dist.pipeline.directory import RunDirectory
    from advntk_dist.pipeline.finished import finished_results
    from advntk_dist.results.schema import RunResults

    config = load_config(source, overrides)
    folder = RunDirectory.at(f"runs/{Path(source).stem}" if out is None else out)
    results = finished_results(folder, config)
    worked = results is None
    if results is None:
        from advntk_dist.data.download import fetch_if_missing
        from advntk_dist.pipeline.run import run as run_job

        if fetch:
            fetch_if_missing(config.data.name, config.data.path, display=display())
        results = run_job(config, folder.root, address=address, display=display()).results
    return finished(folder, results, worked, results_lines(RunResults.model_validate(results), folder.root))


def finished(folder: RunDirectory, results: dict[str, Any], worked: bool, lines: Iterable[str]) -> Answer:
    """The results of a run that is finished, and whether it was so before; ``lines`` say them."""
    before = () if worked else (f"{folder.root}: finished before, nothing to do",)
    return Answer(
        results | {"run": str(folder.root), "report": str(folder.report), "worked": worked},
        chain(before, lines, (f"report: {folder.report}",)),
    )


@click.command(short_help="List presets, or print one with all its keys.")
@click.argument("name", required=False, type=SOURCE)
@answers
def presets(name: str | None) -> Answer:
    """List the built-in configurations, or print one of them as TOML with every key and what it means.

    What is printed is a file for `advntk run`, to be changed at will. Presets of finite-width are printed as
    finite-width/NAME.

    Examples: advntk presets

    advntk presets digits > mine.toml
    """
    from advntk_dist.config import RunConfig, paper, preset_names, preset_text, read_config
    from advntk_dist.config.finite_width import FiniteWidthConfig
    from advntk_dist.config.read import explained

    if name is not None:
        kind = FiniteWidthConfig if name.startswith(_FINITE) else RunConfig
        preset = read_config(kind, name.removeprefix(_FINITE))
        return Answer(preset.model_dump(mode="json"), [explained(preset).removesuffix("\n")])
    runs, finite = (
        {name: preset_text(name, kind).splitlines()[0].removeprefix("# ") for name in preset_names(kind)}
        for kind in (RunConfig, FiniteWidthConfig)
    )
    lines = (
        "advntk run, gram build, plan:",
        *(f"  {name:<20}{text}" for name, text in runs.items()),
        f"  {paper.summary()}",
        f"  {'':<20}every experiment of the paper, for example paper/cifar10-mlp-5-r8 (--fetch or data.path)",
        "advntk finite-width:",
        *(f"  {name:<20}{text}" for name, text in finite.items()),
    )
    return Answer({"run": runs, "paper": paper.names(), "finite-width": finite}, lines)


_FINITE = "finite-width/"
"""What stands before the name of a preset of finite-width."""


@click.command(short_help="Predict time, disk and memory of a run.")
@click.argument("source", metavar="PRESET|FILE.toml", type=SOURCE)
@SET
@click.option("--out", type=PlaceParameter(), help="Where the run would lie: the free space of a disk is looked at.")
@click.option("--nodes", type=int, help="Machines of a cluster. [default: this machine alone]")
@click.option("--cpus", type=int, help="Cores of a node. [default: as here]")
@click.option("--gpus", type=int, help="GPUs of a node. [default: none]")
@click.option("--memory", metavar="SIZE", help="Memory of a node, e.g. 64GiB. [default: as here]")
@click.option("--node-link", type=float, metavar="GB/S", help="Between a node and the store.")
@click.option("--shared-store", type=float, metavar="GB/S", help="Of the store, for all nodes together.")
@click.option("--network", type=float, metavar="GB/S", help="Into or out of a node.")
@click.option("--calibration", type=click.Path(path_type=Path), help="Use this measurement, of a node of the cluster.")
@click.option("--save-calibration", "save", type=click.Path(path_type=Path), help="Keep the measurement in a file.")
@answers
def plan(
    source: str,
    overrides: Sequence[str],
    out: Location | None,
    calibration: Path | None,
    save: Path | None,
    **cluster: Any,
) -> Answer:
    """Predict tiles, disk, memory, passes and time by stage of a run, and advise on its settings.

    Nothing of the run is done. Kernels, solves and one attack are measured here on a few images, which takes seconds
    (more for convolutions) and starts Ray once; for a cluster elsewhere, measure on one of its nodes with
    --save-calibration FILE and plan anywhere with --calibration FILE.

    Of several nodes the store and the network cannot be measured here: without their GB/s the time is only bounded from
    below. The line "limits" names what bounds the Gram build, a pass over the matrix, and training.

    Example: advntk plan cifar10-mlp5 --set data.path=cifar --nodes 4 --cpus 16
    """
    from advntk_dist.config import load_config
    from advntk_dist.planning.cluster import described

    config = load_config(source, overrides)
    nodes = described(**cluster)
    if calibration is not None and save is not None:
        raise click.UsageError("--save-calibration keeps a new measurement; leave out --calibration")
    if save is not None and not save.resolve().parent.is_dir():
        raise RequestError(f"--save-calibration {save}: there is no folder {save.parent}; make it, or give another")
    from advntk_dist.planning.calibration import Calibration
    from advntk_dist.planning.plan import plan_run

    known = None if calibration is None else Calibration.read(calibration)
    disk = out or Path()
    place = disk if isinstance(disk, Path) else None
    made, measured = plan_run(config, nodes, calibration=known, out=place, say=display().say)
    if save is not None:
        measured.write(save)
    return Answer(made.as_dict(), [str(made)])


@click.command(short_help="Say how far a run is.")
@click.argument("folder", metavar="RUN")
@answers
def status(folder: str) -> Answer:
    """Say how far a run is: stages, tiles, steps, attacked images, pace, and whether a process works on it.

    Reads what the run has stored and disturbs nothing.

    Example: advntk status runs/digits
    """
    from advntk_dist.pipeline.status import run_status

    found = run_status(folder)
    return Answer(asdict(found), [str(found)])


@click.command("finite-width", short_help="Train networks of finite width beside infinite width.")
@configured(default_out=True, source=FINITE_WIDTH_SOURCE)
@click.option(
    "--infinite",
    metavar="RUN",
    help="A finished `advntk run` of the same data, network, attack and recipe. [default: that job, in OUT/infinite]",
)
@answers
def finite_width(
    source: str, out: str | None, overrides: Sequence[str], address: str | None, infinite: str | None
) -> Answer:
    """Train networks of finite width: the theorem's flow against width, and the paper's adversarial training.

    Presets: digits (minutes), cifar10-small (CIFAR-10, 2,000 images, tens of minutes), cifar10-mlp5 and cifar10-cnn5
    (the paper's settings, for GPUs). The same command resumes.

    Example: advntk finite-width digits --set flow.seeds=8
    """
    from advntk_dist.config import read_config
    from advntk_dist.config.finite_width import FiniteWidthConfig
    from advntk_dist.pipeline.finite_width import FiniteRunDirectory, run_finite_width
    from advntk_dist.results.schema import FiniteWidthResults

    config = read_config(FiniteWidthConfig, source, overrides)
    folder = FiniteRunDirectory.at(f"runs/finite-{Path(source).stem}" if out is None else out)
    outcome = run_finite_width(config, folder.root, infinite=infinite, address=address, display=display())
    results = FiniteWidthResults.model_validate(outcome.results)
    slopes = (
        f"{name:<15}{line['slope']:>7.3f}  {line['low']:.3f} to {line['high']:.3f}"
        for name, line in results.flow["slopes"].items()
    )
    lines = chain(results_lines(results), [f"{'power of width':<15}{'slope':>7}  95% interval"], slopes)
    return finished(folder, outcome.results, outcome.worked, lines)
