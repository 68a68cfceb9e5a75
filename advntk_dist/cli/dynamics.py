"""`advntk dynamics`: training in closed form over all times."""

from __future__ import annotations

from typing import Any

import click

from advntk_dist.cli.options import PlaceParameter, display, json_option, print_json
from advntk_dist.storage.paths import Location


@click.command(short_help="Follow both kinds of training over all times.")
@click.argument("folder", type=PlaceParameter(), metavar="RUN")
@click.option("--strength", default=2.0, show_default=True, help="Theta_x eta S of the median sample.")
@click.option(
    "--rates",
    type=click.Choice(["adaptive", "uniform"]),
    default="adaptive",
    show_default=True,
    help="One rate eta a sample, by its distance to other classes, or one for all.",
)
@click.option("--schedule", default="constant", show_default=True, help="constant, ramp, cosine, step or cyclic.")
@click.option("--duration", type=float, help="Time a schedule takes. [default: the middle of the grid of times]")
@click.option("--pieces", default=4, show_default=True, help="Pieces of an interval for the exact answer.")
@click.option("--images", type=int, help="Test and validation images to attack. [default: as the run did]")
@json_option
def dynamics(folder: Location, as_json: bool, **values: Any) -> None:
    """Standard and adversarial training of a run's network over time: robust overfitting and where to stop.

    Times and attack are those of the run; it needs a finished Gram matrix. The same command resumes.

    Example: advntk dynamics runs/digits --schedule cosine
    """
    from advntk_dist.pipeline.dynamics import DynamicsRequest
    from advntk_dist.pipeline.dynamics import dynamics as compute

    path, results = compute(folder, DynamicsRequest(**values), display=display())
    if as_json:
        print_json(results | {"written": str(path)})
        return
    for name, flow in results["flows"].items():
        stop, solver = flow["early_stopping"], flow["solver"]
        bases = "one Krylov basis" if solver["bases"] == 1 else f"{solver['bases']} Krylov bases"
        click.echo(
            f"{name}: stop at t = {stop['t']:.4g} (effective {stop['effective_time']:.4g}, "
            f"chosen on {stop['chosen_on']}): "
            f"clean {100 * stop['test_clean']:.1f}%, robust {100 * stop['test_robust']:.1f}%; "
            f"{solver['passes']} passes over the matrix for {bases}"
        )
    end = results["flows"]["standard"]["rows"][-1]
    click.echo(f"both end at the plain NTK: clean {100 * end['clean']:.1f}%, robust {100 * end['robust']:.1f}%")
    for remark in results["remarks"]:
        click.echo(remark)
    if results["exactness"] is not None:
        largest = results["exactness"]["largest_distance"]
        click.echo(f"largest distance of the closed form to the exact flow: {largest:.2g}")
    click.echo(f"written: {path}, dynamics.csv and dynamics.svg")
