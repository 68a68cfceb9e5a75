"""`advntk plan`: what a run will take, before anything of it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from advntk_dist.cli.options import PlaceParameter, SourceParameter, display, json_option, print_json
from advntk_dist.errors import RequestError
from advntk_dist.storage.paths import Location


@click.command(short_help="Predict time, disk and memory of a run.")
@click.argument("source", metavar="PRESET|FILE.toml", type=SourceParameter())
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one configuration key.")
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
@json_option
def plan(
    source: str,
    overrides: Sequence[str],
    out: Location | None,
    nodes: int | None,
    cpus: int | None,
    gpus: int | None,
    memory: str | None,
    node_link: float | None,
    shared_store: float | None,
    network: float | None,
    calibration: Path | None,
    save: Path | None,
    as_json: bool,
) -> None:
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
    cluster = described(nodes, cpus, gpus, memory, node_link=node_link, shared_store=shared_store, network=network)
    if calibration is not None and save is not None:
        raise click.UsageError("--save-calibration keeps a new measurement; leave out --calibration")
    if save is not None and not save.resolve().parent.is_dir():
        raise RequestError(f"--save-calibration {save}: there is no folder {save.parent}; make it, or give another")
    from advntk_dist.planning.calibration import Calibration
    from advntk_dist.planning.plan import plan_run

    known = None if calibration is None else Calibration.read(calibration)
    disk = out or Path()
    place = disk if isinstance(disk, Path) else None
    made, measured = plan_run(config, cluster, calibration=known, out=place, say=display().say)
    if save is not None:
        measured.write(save)
    if as_json:
        print_json(made.as_dict())
    else:
        click.echo(str(made))
