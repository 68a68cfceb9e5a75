"""`advntk status`: how far a run is, from any terminal."""

from __future__ import annotations

import click

from advntk_dist.cli.options import json_option, print_json


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
        print_json(found.as_dict())
    else:
        click.echo(str(found))
