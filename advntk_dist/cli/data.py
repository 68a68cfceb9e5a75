"""`advntk data`: fetch published datasets, and look at any dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from advntk_dist.cli.options import PUBLISHED, display, json_before, json_option, print_json


@click.group()
@json_before
def data() -> None:
    """Fetch published datasets, and look at any dataset.

    Examples: advntk data fetch cifar10

    advntk data info my_images/
    """


@data.command("fetch", short_help="Download a published dataset, and check it.")
@click.argument("name", metavar="NAME", type=PUBLISHED)
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), help="Folder for the files.")
@click.option("--mirror", metavar="URL", help="Address of a folder with the same files.")
@json_option
def data_fetch(name: str, to: Path | None, mirror: str | None, as_json: bool) -> None:
    """Download cifar10, cifar100, svhn, mnist or fashion-mnist from where it is published, and check it.

    The same command goes on where an earlier one stopped. Without --to the files go to $ADVNTK_DATA/NAME, or to
    ~/.cache/advntk-dist/NAME, where `data.name = NAME` finds them without a path.

    Example: advntk data fetch cifar10
    """
    from advntk_dist.data.download import fetch
    from advntk_dist.data.registry import load_dataset

    folder = fetch(name, to, mirror=mirror, display=display())
    found = load_dataset(name, folder)
    settings = {"data.name": name} | ({} if to is None else {"data.path": str(folder)})
    if as_json:
        about = {"images": len(found), "shape": list(found.image_shape), "classes": found.n_classes}
        print_json({"folder": str(folder), "name": name} | about | {"set": settings})
        return
    shape = " x ".join(str(side) for side in found.image_shape)
    click.echo(f"{folder}: {name}, {len(found):,} images of {shape}, {found.n_classes} classes")
    click.echo("use it with " + " ".join(f"--set {key}={value}" for key, value in settings.items()))


@data.command("info", short_help="Print what a dataset holds.")
@click.argument("name", metavar="PATH|NAME")
@click.option("--path", help="Where a dataset given by name lies.")
@click.option("--resize", type=click.IntRange(1, 4096), help="Bring images to this edge, as data.resize does.")
@click.option(
    "--class-subset", metavar="CLASS,CLASS", help="Keep these classes, by name or number, as data.class_subset does."
)
@json_option
def data_info(name: str, path: str | None, resize: int | None, class_subset: str | None, as_json: bool) -> None:
    """Print what a dataset holds: images, parts, classes with counts, fingerprint, mean of the pixels, equal images.

    Training, validation and test images that the data divide themselves (folders train, val and test; arrays x_train,
    x_val, x_test) are counted apart, and a run draws each of its parts from the one of that name.

    A run takes a part of the classes by --set 'data.class_subset=["cat", "dog"]', and another size by --set
    data.resize=32.

    Examples: advntk data info my_images/

    advntk data info cifar10 --class-subset cat,dog
    """
    from advntk_dist.data.dataset import summarise
    from advntk_dist.data.duplicates import find_duplicates
    from advntk_dist.data.registry import load_dataset

    classes = None if class_subset is None else [word.strip() for word in class_subset.split(",")]
    found = load_dataset(name, path, resize=resize, class_subset=classes)
    summary, duplicates = summarise(found), find_duplicates(found, found.parts)
    if as_json:
        print_json(summary | {"duplicates": duplicates.as_dict()})
    else:
        _print(summary, str(duplicates))


def _print(summary: dict[str, Any], duplicates: str) -> None:
    height, width, channels = summary["shape"]
    parts = summary["parts"]
    click.echo(f"dataset      {summary['name']}")
    click.echo(f"images       {summary['n']:,} ({', '.join(f'{part} {n:,}' for part, n in parts.items())})")
    click.echo(f"shape        {height} x {width} x {channels}")
    for label, values in (("pixel mean", summary["mean"]), ("pixel std", summary["std"])):
        click.echo(f"{label:<13}{', '.join(f'{value:.2f}' for value in values)} (of 255)")
    click.echo(f"fingerprint  {summary['fingerprint']}")
    if duplicates:
        click.echo(f"equal images {duplicates}")
    column = max(5, *(len(row["name"]) for row in summary["classes"]))
    click.echo(f"{'label':>5}  {'class':<{column}}" + "".join(f"{part:>9}" for part in parts))
    for number, row in enumerate(summary["classes"]):
        click.echo(f"{number:>5}  {row['name']:<{column}}" + "".join(f"{row[part]:>9,}" for part in parts))
