"""`advntk reproduce`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from advntk_dist.cli.options import ADDRESS, WORKERS, display, json_option, print_json
from advntk_dist.errors import RequestError
from advntk_dist.storage.paths import local, location


@click.command(short_help="Run any part of the paper's experiments.")
@click.option("--dataset", "datasets", multiple=True, help="cifar10, svhn or FILE.npz; repeatable. [default: cifar10]")
@click.option("--network", "networks", multiple=True, help="mlp-3, cnn-5, ...; repeatable. [default: mlp-3 to mlp-10]")
@click.option("--method", "methods", multiple=True, help="ntk, early-stopped, adv-ntk, at. [default: all]")
@click.option("--attack", "attacks", multiple=True, help="pgd, pgd-reference. [default: both]")
@click.option("--radius", "radii", multiple=True, help="4/255 or 8/255; repeatable. [default: both]")
@click.option("--seeds", default=3, show_default=True)
@click.option("--n-train", type=int, help="Training images. [default: 10000, the paper's]")
@click.option("--n-val", type=int, help="Validation images. [default: 2000, the paper's]")
@click.option("--n-test", type=int, help="Test images. [default: 2000]")
@click.option("--at-steps", type=int, help="Steps of finite adversarial training. [default: 20000, the paper's]")
@click.option("--data", "path", help="Where the dataset lies.")
@click.option("--out", required=True, help="Folder of the grid.")
@WORKERS
@ADDRESS
@click.option("--keep-grams", is_flag=True, help="Keep Gram matrices on disk.")
@click.option("--dry-run", is_flag=True, help="List what is missing with its predicted time.")
@json_option
def reproduce(
    datasets: Sequence[str],
    networks: Sequence[str],
    methods: Sequence[str],
    attacks: Sequence[str],
    radii: Sequence[str],
    seeds: int,
    n_train: int | None,
    n_val: int | None,
    n_test: int | None,
    at_steps: int | None,
    path: str | None,
    out: str,
    workers: int | None,
    address: str | None,
    keep_grams: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run any part of the paper's experiments over seeds, and write table.md, .csv, .html, .json.

    Options that repeat also take lists with commas. Each cell is committed when it is done; the same command resumes,
    and a wider one adds to the same folder. With --workers or --address, Ray actors attack the images of the kernel
    methods; the networks of `at` are trained in this process.

    Example: advntk reproduce --network mlp-3,mlp-5 --radius 8/255 --data cifar --out grid
    """
    from advntk_dist.config import paper
    from advntk_dist.pipeline.directory import RunDirectory
    from advntk_dist.reproduce.grid import (
        ATTACKS,
        METHODS,
        Grid,
        Sizes,
        gram_seconds,
        known_data,
        left_line,
        missing,
        predicted,
    )
    from advntk_dist.text import duration

    asked = {"n_train": n_train, "n_val": n_val, "n_test": n_test, "at_steps": at_steps}
    grid = Grid(
        _listed(datasets) or ["cifar10"],
        _listed(networks) or [n for n in paper.NETWORKS if n.startswith("mlp")],
        _listed(methods) or list(METHODS),
        [_radius(r) for r in _listed(radii)] or list(paper.RADII),
        seeds,
        Sizes(**{k: v for k, v in asked.items() if v is not None}),
        _listed(attacks) or list(ATTACKS),
        path,
    )
    root, shown = local(location(out)), display()
    RunDirectory.at(root)
    if dry_run:
        plan = grid.plan()
        left = missing(plan, root, known_data(grid, root, shown))
        if as_json:
            cells = {cell.name: cell.seconds() for group in left for cell in group}
            grams = {group[0].subject.name: gram_seconds(group) for group in left}
            print_json({"cells": cells, "grams": grams, "seconds": predicted(left)})
            return
        for group in left:
            click.echo(f"{group[0].subject.name}  Gram matrix {duration(gram_seconds(group))}")
            for cell in group:
                click.echo(f"  {cell.name.rpartition('/')[2]:<36}{duration(cell.seconds())}")
        click.echo(left_line(plan, left))
        return
    from advntk_dist.reproduce.job import reproduce as run
    from advntk_dist.reproduce.table import cells_of, markdown

    rows = run(grid, out, display=shown, keep_grams=keep_grams, workers=workers, address=address)
    if as_json:
        print_json({"rows": rows, "table": str(root / "table.md")})
        return
    click.echo(markdown(*cells_of(rows)))
    click.echo(f"table: {root / 'table.md'}")


def _listed(values: Sequence[str]) -> list[str]:
    """Repeated options and lists with commas, each name once."""
    return list(dict.fromkeys(word.strip() for value in values for word in value.split(",") if word.strip()))


def _radius(text: str) -> float:
    """A radius in units of 1/255."""
    from advntk_dist.config.sections import fraction

    try:
        return round(255 * float(fraction(text)), 9)
    except ValueError as error:
        raise RequestError(f"--radius {text}: give a fraction of the pixel range, such as 8/255") from error
