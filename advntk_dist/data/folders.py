"""Images in class folders, on disk or in an archive: which files there are, and their classes and parts.

What comes out depends on names alone, so that a folder and an archive of it give the same dataset.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from advntk_dist.data.files import ArchiveMember, dataset_errors, members, read_bytes, require_fewer
from advntk_dist.errors import DatasetError
from advntk_dist.text import printable

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
WHAT = (
    "a folder, .tar, .tar.gz or .zip with one folder of images a class, or with train/CLASS/ and test/CLASS/ ones, and "
    "val/CLASS/ where validation images are given"
)
_VALIDATION = ("val", "valid", "validation", "dev")
_LIKE_PARTS = frozenset(("train", "test", *_VALIDATION, "training", "testing"))
_CLUTTER = frozenset(("__macosx", "thumbs.db", "desktop.ini"))
_DEEPEST = 8
_GLANCE = 20_000
"""Files that are looked at to recognise a folder or an archive; a class folder comes among the first."""


@dataclass(frozen=True)
class Listing:
    """The images of a dataset in their order: by part, then class, then name.

    Parameters
    ----------
    rows
        Position of each image, by its name within the folder or archive.
    labels
        Labels in that order.
    classes
        Class names, sorted.
    test_start, val_start
        Where the images of these parts begin, None where there is no such part.
    """

    rows: dict[PurePosixPath, int]
    labels: list[int]
    classes: tuple[str, ...]
    test_start: int | None
    val_start: int | None


def walk(place: Path) -> Iterator[ArchiveMember]:
    """Yield the files and folders under a folder, or the members of an archive, without hidden ones and clutter.

    Raises
    ------
    DatasetError
        If the archive or a folder cannot be read.
    """
    for member in _walk_folder(place) if place.is_dir() else members(place):
        if not any(part.startswith(".") or part.lower() in _CLUTTER for part in member.path.parts):
            yield member


def holds_class_folders(place: Path) -> bool:
    """Whether a folder or archive has an image in a folder of its own (looks at its first entries only)."""
    try:
        for count, member in enumerate(walk(place)):
            if member.read is not None and len(member.path.parts) >= 2 and member.path.suffix.lower() in SUFFIXES:
                return True
            if count == _GLANCE:
                return False
    except DatasetError:
        return False
    return False


def list_images(place: Path) -> Listing:
    """Find the images of a folder or archive, by the names of its files alone.

    Raises
    ------
    DatasetError
        If there are none, a folder has none, a file in a class folder is not an image by its name, a file lies deeper
        than class/image, images lie beside class folders, a name is there twice, or parts are not train, val and test.
    """
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for member in walk(place):
        if member.is_folder:
            folders.add(member.path)
        elif member.read is None:
            raise DatasetError(
                f"{place}: {str(member.path)!r} is a link, a pipe, a device or else no plain file; give the files "
                "themselves"
            )
        elif member.path in files:
            raise DatasetError(f"{place}: holds {str(member.path)!r} twice; remove one")
        else:
            files.add(member.path)
    images = {path for path in files if path.suffix.lower() in SUFFIXES}
    if not images:
        raise DatasetError(f"{place}: holds no image ({', '.join(sorted(SUFFIXES))}); set data.path to {WHAT}")
    skip = _wrapper(images)
    parts = _parts(place, {path.parts[skip] for path in images}, images, skip)
    depth = skip + bool(parts)
    for path in sorted(files):
        inside = len(path.parts) - depth
        if inside > 2 or (path in images and inside < 2):
            raise DatasetError(f"{place}: {str(path)!r} does not lie directly in a class folder; it must be {WHAT}")
        if inside == 2 and path not in images:
            raise DatasetError(f"{place}: {str(path)!r} in a class folder is no image by its name; move it elsewhere")
    filled = {folder for path in images for folder in path.parents}
    empty = min(folders - filled, default=None)
    if empty is not None:
        raise DatasetError(f"{place}: folder {str(empty)!r} holds no image; add images or remove it")
    return _ordered(place, images, depth, parts)


def _ordered(place: Path, images: set[PurePosixPath], depth: int, parts: tuple[str, ...]) -> Listing:
    def part(path: PurePosixPath) -> int:
        return parts.index(path.parts[depth - 1]) if parts else 0

    ordered = sorted(images, key=lambda path: (part(path), path.parts))
    starts = [sum(part(path) < k for path in ordered) for k in range(len(parts))]
    test_start = starts[-1] if parts else None
    val_start = starts[1] if len(parts) == len(("train", "val", "test")) else None
    first = starts[1] if parts else len(ordered)
    classes = tuple(sorted({path.parts[depth] for path in ordered[:first]}))
    strange = next((path for path in ordered[first:] if path.parts[depth] not in classes), None)
    if strange is not None:
        raise DatasetError(
            f"{place}: class {strange.parts[depth]!r} has {strange.parts[depth - 1]} images but no training images; "
            "add some"
        )
    number = {name: label for label, name in enumerate(classes)}
    labels = [number[path.parts[depth]] for path in ordered]
    return Listing({path: row for row, path in enumerate(ordered)}, labels, classes, test_start, val_start)


def _wrapper(images: set[PurePosixPath]) -> int:
    """How many folders lie around all class folders or parts."""
    skip = 0
    while all(len(path.parts) > skip + 2 for path in images) and len({path.parts[skip] for path in images}) == 1:
        skip += 1
    return skip


def _parts(place: Path, tops: set[str], images: set[PurePosixPath], skip: int) -> tuple[str, ...]:
    """Names of the outermost folders for training, validation (where there is one) and test images; empty for classes.

    Raises
    ------
    DatasetError
        If they are neither that nor classes.
    """
    if not tops <= _LIKE_PARTS:
        return ()
    deep = all(len(path.parts) > skip + 2 for path in images)
    validation = tuple(name for name in _VALIDATION if name in tops)
    if deep and len(validation) <= 1 and tops == {"train", *validation, "test"}:
        return ("train", *validation, "test")
    if not deep:
        remedy = "put the images of each in one folder a class"
    elif len(validation) > 1:
        remedy = f"keep one of {' and '.join(validation)}"
    elif tops == {"train", *validation}:
        remedy = (
            f"rename {validation[0]} to test, of which the results are (validation images are then drawn from train, "
            "data.n_val), or add test"
        )
    else:
        remedy = "name them train, val and test"
    raise DatasetError(
        f"{place}: {', '.join(sorted(tops))} are parts of a dataset, not classes; {remedy}; it must be {WHAT}"
    )


def _walk_folder(root: Path) -> Iterator[ArchiveMember]:
    def listed(folder: Path, inside: PurePosixPath, around: frozenset[tuple[int, int]]) -> Iterator[ArchiveMember]:
        with dataset_errors(f"{printable(str(folder))}: cannot be listed", "check its permissions", OSError):
            about = folder.stat()
            with os.scandir(folder) as entries:
                found = sorted((entry.name, entry.is_dir(), entry.is_file()) for entry in entries)
        here = about.st_dev, about.st_ino
        if here in around:
            raise DatasetError(
                f"{printable(str(folder))}: is a link to a folder around it, which never ends; remove it"
            )
        for name, is_folder, is_file in found:
            path, file = inside / name, folder / name
            yield ArchiveMember(path, partial(read_bytes, file) if is_file else None, is_folder)
            if is_folder and len(path.parts) < _DEEPEST and not name.startswith("."):
                yield from listed(file, path, around | {here})

    for count, member in enumerate(listed(root, PurePosixPath(), frozenset())):
        require_fewer(count, root)
        yield member
