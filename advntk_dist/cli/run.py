"""`advntk run` and `advntk presets`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from advntk_dist.cli.options import configured, display, json_option, print_json, print_results

if TYPE_CHECKING:
    from advntk_dist.config import RunConfig
    from advntk_dist.pipeline.rundir import RunDirectory


@click.command()
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
    from advntk_dist.pipeline.rundir import RunDirectory

    config = load_config(source, overrides)
    folder = RunDirectory.at(_out(source, out))
    results = _finished(folder, config)
    worked = results is None
    if results is not None:
        if not as_json:
            click.echo(f"{folder.root}: finished before, nothing to do")
    else:
        from advntk_dist.data.fetch import fetch_if_missing
        from advntk_dist.pipeline.run import run as run_job

        if fetch:
            fetch_if_missing(config.data.name, config.data.path, display=display())
        results = run_job(config, folder.root, address=address, display=display()).results
    if as_json:
        print_json(results | {"run": str(folder.root), "report": str(folder.report), "worked": worked})
        return
    print_results(results)
    click.echo(f"report: {folder.report}")


@click.command()
@json_option
def presets(as_json: bool) -> None:
    """List the built-in configurations.

    Example: advntk presets
    """
    from advntk_dist import config
    from advntk_dist.finite import config as finite_width
    from advntk_dist.reproduce import paper

    runs, finite = (
        {name: module.preset_text(name).splitlines()[0].removeprefix("# ") for name in module.preset_names()}
        for module in (config, finite_width)
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


def _out(source: str, out: str | None) -> str:
    return out if out is not None else str(Path("runs") / Path(source).stem)


def _finished(folder: RunDirectory, config: RunConfig) -> dict[str, Any] | None:
    """The results of a finished run, found without loading JAX or Ray."""
    if not folder.config.exists():
        return None
    with folder.claimed(config):
        return folder.finished()
