"""`advntk data`: fetch published datasets, and look at any dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from advntk_dist.cli.options import PUBLISHED, Answer, answers, display, json_before


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
@answers
def data_fetch(name: str, to: Path | None, mirror: str | None) -> Answer:
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
    about = {"images": len(found), "shape": list(found.image_shape), "classes": found.n_classes}
    shape = " x ".join(str(side) for side in found.image_shape)
    return Answer(
        {"folder": str(folder), "name": name} | about | {"set": settings},
        (
            f"{folder}: {name}, {len(found):,} images of {shape}, {found.n_classes} classes",
            "use it with " + " ".join(f"--set {key}={value}" for key, value in settings.items()),
        ),
    )


@data.command("info", short_help="Print what a dataset holds.")
@click.argument("name", metavar="PATH|NAME")
@click.option("--path", help="Where a dataset given by name lies.")
@click.option("--resize", type=click.IntRange(1, 4096), help="Bring images to this edge, as data.resize does.")
@click.option(
    "--class-subset", metavar="CLASS,CLASS", help="Keep these classes, by name or number, as data.class_subset does."
)
@answers
def data_info(name: str, path: str | None, resize: int | None, class_subset: str | None) -> Answer:
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
    return Answer(summary | {"duplicates": duplicates.as_dict()}, _lines(summary, str(duplicates)))


def _lines(summary: dict[str, Any], duplicates: str) -> Iterator[str]:
    height, width, channels = summary["shape"]
    parts = summary["parts"]
    yield f"dataset      {summary['name']}"
    yield f"images       {summary['n']:,} ({', '.join(f'{part} {n:,}' for part, n in parts.items())})"
    yield f"shape        {height} x {width} x {channels}"
    for label, values in (("pixel mean", summary["mean"]), ("pixel std", summary["std"])):
        yield f"{label:<13}{', '.join(f'{value:.2f}' for value in values)} (of 255)"
    yield f"fingerprint  {summary['fingerprint']}"
    if duplicates:
        yield f"equal images {duplicates}"
    column = max(5, *(len(row["name"]) for row in summary["classes"]))
    yield f"{'label':>5}  {'class':<{column}}" + "".join(f"{part:>9}" for part in parts)
    for number, row in enumerate(summary["classes"]):
        yield f"{number:>5}  {row['name']:<{column}}" + "".join(f"{row[part]:>9,}" for part in parts)
