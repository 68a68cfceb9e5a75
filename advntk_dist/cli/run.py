"""`advntk run`, `advntk status`, `advntk finite-width` and `advntk presets`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from advntk_dist.cli.options import SourceParameter, configured, display, json_option, print_json, print_results

if TYPE_CHECKING:
    from advntk_dist.config import RunConfig


@click.command(short_help="Do the whole job, from images to a report.")
@configured(default_out=True)
@click.option("--fetch", is_flag=True, help="Download a published dataset first, where `advntk data fetch` puts it.")
@json_option
def run(
    source: str, out: str | None, overrides: Sequence[str], address: str | None, fetch: bool, as_json: bool
) -> None:
    """Do the whole job: Gram matrix, training, evaluation, report. The same command resumes.

    Examples: advntk run digits --set attack.radius=0.15

    advntk run cifar10-mlp5 --fetch
    """
    from advntk_dist.config import load_config
    from advntk_dist.pipeline.directory import RunDirectory
    from advntk_dist.pipeline.finished import finished_results

    config = load_config(source, overrides)
    folder = RunDirectory.at(_out(source, out))
    results = finished_results(folder, config)
    worked = results is None
    if results is not None:
        if not as_json:
            click.echo(f"{folder.root}: finished before, nothing to do")
    else:
        from advntk_dist.data.download import fetch_if_missing
        from advntk_dist.pipeline.run import run as run_job

        if fetch:
            fetch_if_missing(config.data.name, config.data.path, display=display())
        results = run_job(config, folder.root, address=address, display=display()).results
    if as_json:
        print_json(results | {"run": str(folder.root), "report": str(folder.report), "worked": worked})
        return
    print_results(results, folder.root)
    click.echo(f"report: {folder.report}")


@click.command(short_help="List presets, or print one with all its keys.")
@click.argument("name", required=False, type=SourceParameter())
@json_option
def presets(name: str | None, as_json: bool) -> None:
    """List the built-in configurations, or print one of them as TOML with every key and what it means.

    What is printed is a file for `advntk run`, to be changed at will. Presets of finite-width are printed as
    finite-width/NAME.

    Examples: advntk presets

    advntk presets digits > mine.toml
    """
    if name is not None:
        _print_preset(name, as_json)
        return
    from advntk_dist.config import RunConfig, paper, preset_names, preset_text
    from advntk_dist.config.finite_width import FiniteWidthConfig

    runs, finite = (
        {name: preset_text(name, kind).splitlines()[0].removeprefix("# ") for name in preset_names(kind)}
        for kind in (RunConfig, FiniteWidthConfig)
    )
    if as_json:
        print_json({"run": runs, "paper": paper.names(), "finite-width": finite})
        return
    click.echo("advntk run, gram build, plan:")
    for name, text in runs.items():
        click.echo(f"  {name:<20}{text}")
    click.echo(f"  {paper.summary()}")
    click.echo(f"  {'':<20}every experiment of the paper, for example paper/cifar10-mlp-5-r8 (--fetch or data.path)")
    click.echo("advntk finite-width:")
    for name, text in finite.items():
        click.echo(f"  {name:<20}{text}")


def _print_preset(name: str, as_json: bool) -> None:
    from advntk_dist.config.read import explained

    found = _preset(name)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        click.echo(explained(found), nl=False)


def _preset(name: str) -> RunConfig:
    finite = "finite-width/"
    if name.startswith(finite):
        from advntk_dist.config import read_config
        from advntk_dist.config.finite_width import FiniteWidthConfig

        return read_config(FiniteWidthConfig, name.removeprefix(finite))
    from advntk_dist.config import load_config

    return load_config(name)


def _out(source: str, out: str | None) -> str:
    return out if out is not None else str(Path("runs") / Path(source).stem)


@click.command(short_help="Say how far a run is.")
@click.argument("folder", metavar="RUN")
@json_option
def status(folder: str, as_json: bool) -> None:
    """Say how far a run is: stages, tiles, steps, attacked images, pace, and whether a process works on it.

    Reads what the run has stored and disturbs nothing.

    Example: advntk status runs/digits
    """
    from advntk_dist.pipeline.status import run_status

    found = run_status(folder)
    if as_json:
        print_json(asdict(found))
    else:
        click.echo(str(found))


@click.command("finite-width", short_help="Train networks of finite width beside infinite width.")
@configured(default_out=True, source=SourceParameter("finite-width"))
@click.option(
    "--infinite",
    metavar="RUN",
    help="A finished `advntk run` of the same data, network, attack and recipe. [default: that job, in OUT/infinite]",
)
@json_option
def finite_width(
    source: str, out: str | None, overrides: Sequence[str], address: str | None, infinite: str | None, as_json: bool
) -> None:
    """Train networks of finite width: the theorem's flow against width, and the paper's adversarial training.

    Presets: digits (minutes), cifar10-small (CIFAR-10, 2,000 images, tens of minutes), cifar10-mlp5 and cifar10-cnn5
    (the paper's settings, for GPUs). The same command resumes.

    Example: advntk finite-width digits --set flow.seeds=8
    """
    from advntk_dist.config import read_config
    from advntk_dist.config.finite_width import FiniteWidthConfig
    from advntk_dist.pipeline.finite_width import FiniteRunDirectory, run_finite_width

    config = read_config(FiniteWidthConfig, source, overrides)
    folder = FiniteRunDirectory.at(out if out is not None else str(Path("runs") / f"finite-{Path(source).stem}"))
    outcome = run_finite_width(config, folder.root, infinite=infinite, address=address, display=display())
    if not outcome.worked and not as_json:
        click.echo(f"{folder.root}: finished before, nothing to do")
    results = outcome.results
    if as_json:
        print_json(results | {"run": str(folder.root), "report": str(folder.report), "worked": outcome.worked})
        return
    print_results(results)
    click.echo(f"{'power of width':<15}{'slope':>7}  95% interval")
    for name, line in results["flow"]["slopes"].items():
        click.echo(f"{name:<15}{line['slope']:>7.3f}  {line['low']:.3f} to {line['high']:.3f}")
    click.echo(f"report: {folder.report}")
