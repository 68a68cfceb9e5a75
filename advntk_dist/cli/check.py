"""`advntk check`: whether the robustness of a run is real."""

from __future__ import annotations

import click

from advntk_dist.cli.options import Place, display, json_option, print_json
from advntk_dist.storage.location import Location


@click.command(short_help="Examine a finished run for gradient masking.")
@click.argument("folder", type=Place(), metavar="RUN")
@click.option(
    "--images", type=click.IntRange(min=1), default=200, show_default=True, help="The first so many test images."
)
@click.option("--method", default="adv_ntk", show_default=True, help="adv_ntk, early_stopped or ntk.")
@json_option
def check(folder: Location, images: int, method: str, as_json: bool) -> int:
    """Examine a finished run for gradient masking; exit 0 if every check passes, 1 if one fails.

    Example: advntk check runs/digits --method early_stopped
    """
    from advntk_dist.pipeline.check import check_run

    path, report = check_run(folder, images=images, method=method, display=display())
    if as_json:
        print_json(report)
        return 0 if report["passed"] else 1
    click.echo(f"{report['dataset']}, {report['network']}, {report['method']}, {report['images']} test images")
    for row in report["checks"]:
        click.echo(f"{'pass' if row['passed'] else 'FAIL'}  {row['name']}")
        click.echo(f"      {row['value']}")
        click.echo(f"      wanted: {row['criterion']}")
    own, white = report["own_attack"], report["white_box"]
    if own is not None:
        click.echo(
            f"the run's own attack leaves {100 * own['robust']:.1f}%, the white-box attacks of these checks together "
            f"{100 * white['robust']:.1f}%"
        )
    click.echo(f"written: {path}; `advntk report {folder}` brings the run's page up to date")
    return 0 if report["passed"] else 1
