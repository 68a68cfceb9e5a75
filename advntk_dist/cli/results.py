"""`advntk evaluate` and `advntk report`: commands on a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from advntk_dist.cli.options import display, print_results


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.option("--attack", "name", default="pgd", show_default=True, help="Name of the attack.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="radius, steps, step_size, norm or seed.")
def evaluate(folder: Path, name: str, overrides: Sequence[str]) -> None:
    """Attack the three methods of a finished run again, with another attack or another strength.

    Example: advntk evaluate runs/digits --attack pgd --set steps=50 --set radius=0.1
    """
    from advntk_dist.pipeline.run import evaluate_again

    path, results = evaluate_again(folder, name, overrides, display=display())
    print_results(results)
    click.echo(f"written: {path}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
def report(folder: Path) -> None:
    """Write the report of a finished run again.

    Example: advntk report runs/digits
    """
    from advntk_dist.pipeline.run import rebuild_report

    click.echo(f"report: {rebuild_report(folder)}")
