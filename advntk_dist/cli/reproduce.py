"""`advntk reproduce`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from advntk_dist.cli.options import ADDRESS, WORKERS, Answer, F, answers, display
from advntk_dist.errors import RequestError
from advntk_dist.storage.paths import local, location


def _repeated(*names: str, help: str) -> Callable[[F], F]:
    """An option that repeats and takes lists with commas: every word that is given, once."""

    def words(_: click.Context, __: click.Parameter, values: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(word.strip() for value in values for word in value.split(",") if word.strip()))

    return click.option(*names, multiple=True, callback=words, help=help)


@click.command(short_help="Run any part of the paper's experiments.")
@_repeated("--dataset", "datasets", help="cifar10, svhn or FILE.npz; repeatable. [default: cifar10]")
@_repeated("--network", "networks", help="mlp-3, cnn-5, ...; repeatable. [default: mlp-3 to mlp-10]")
@_repeated("--method", "methods", help="ntk, early-stopped, adv-ntk, at. [default: all]")
@_repeated("--attack", "attacks", help="pgd, pgd-reference. [default: both]")
@_repeated("--radius", "radii", help="4/255 or 8/255; repeatable. [default: both]")
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
@answers
def reproduce(
    datasets: list[str],
    networks: list[str],
    methods: list[str],
    attacks: list[str],
    radii: list[str],
    seeds: int,
    path: str | None,
    out: str,
    workers: int | None,
    address: str | None,
    keep_grams: bool,
    dry_run: bool,
    **sizes: int | None,
) -> Answer:
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

    grid = Grid(
        datasets or ["cifar10"],
        networks or [n for n in paper.NETWORKS if n.startswith("mlp")],
        methods or METHODS,
        [_radius(text) for text in radii] or paper.RADII,
        seeds,
        Sizes(**{name: size for name, size in sizes.items() if size is not None}),
        attacks or ATTACKS,
        path,
    )
    root, shown = local(location(out)), display()
    RunDirectory.at(root)
    if dry_run:
        plan = grid.plan()
        left = missing(plan, root, known_data(grid, root, shown))
        cells = {cell.name: cell.seconds() for group in left for cell in group}
        grams = {group[0].subject.name: gram_seconds(group) for group in left}
        lines = []
        for group in left:
            name = group[0].subject.name
            lines.append(f"{name}  Gram matrix {duration(grams[name])}")
            lines += [f"  {cell.name.rpartition('/')[2]:<36}{duration(cells[cell.name])}" for cell in group]
        return Answer({"cells": cells, "grams": grams, "seconds": predicted(left)}, [*lines, left_line(plan, left)])
    from advntk_dist.reproduce.job import reproduce as run
    from advntk_dist.reproduce.table import cells_of, markdown

    rows = run(grid, out, display=shown, keep_grams=keep_grams, workers=workers, address=address)
    table = root / "table.md"
    return Answer({"rows": rows, "table": str(table)}, [markdown(*cells_of(rows)), f"table: {table}"])


def _radius(text: str) -> float:
    """A radius in units of 1/255."""
    from advntk_dist.config.sections import fraction

    try:
        return round(255 * float(fraction(text)), 9)
    except ValueError as error:
        raise RequestError(f"--radius {text}: give a fraction of the pixel range, such as 8/255") from error
