"""Images in class folders, on disk or in an archive: which files there are, and their classes and parts.

What comes out depends on names alone, so that a folder and an archive of it give the same dataset.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from advntk_dist.data.files import Member, members, read_bytes, reason
from advntk_dist.errors import DatasetError

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
WHAT = "a folder, .tar, .tar.gz or .zip with one folder of images a class, or with train/CLASS/ and test/CLASS/ ones"
_PARTS = ("train", "test")
_LIKE_PARTS = frozenset((*_PARTS, "val", "valid", "validation", "dev", "training", "testing"))
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
    test_start
        Number of training images, None where there is no test part.
    """

    rows: dict[PurePosixPath, int]
    labels: list[int]
    classes: tuple[str, ...]
    test_start: int | None


def walk(place: Path) -> Iterator[Member]:
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
    """Find the images of a folder or archive.

    Raises
    ------
    DatasetError
        If there are none, a folder has none, a file in a class folder is not an image by its name, a file lies deeper
        than class/image, images lie beside class folders, a name is there twice, or parts are not train and test.
    """
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for member in walk(place):
        if member.is_folder:
            folders.add(member.path)
        elif member.read is None:
            raise DatasetError(f"{place}: {str(member.path)!r} is a link or no plain file; give the files themselves")
        elif member.path in files:
            raise DatasetError(f"{place}: holds {str(member.path)!r} twice; remove one")
        else:
            files.add(member.path)
    images = {path for path in files if path.suffix.lower() in SUFFIXES}
    if not images:
        raise DatasetError(f"{place}: holds no image ({', '.join(sorted(SUFFIXES))}); set data.path to {WHAT}")
    skip = _wrapper(images)
    split = _parts(place, {path.parts[skip] for path in images}, images, skip)
    depth = skip + split
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
    return _ordered(place, images, depth, split)


def _ordered(place: Path, images: set[PurePosixPath], depth: int, split: bool) -> Listing:
    def is_test(path: PurePosixPath) -> bool:
        return split and path.parts[depth - 1] == "test"

    ordered = sorted(images, key=lambda path: (is_test(path), path.parts))
    test_start = sum(not is_test(path) for path in ordered) if split else None
    classes = tuple(sorted({path.parts[depth] for path in ordered[:test_start]}))
    strange = sorted({path.parts[depth] for path in ordered} - set(classes))
    if strange:
        raise DatasetError(f"{place}: class {strange[0]!r} has test images but no training images; add some")
    number = {name: label for label, name in enumerate(classes)}
    labels = [number[path.parts[depth]] for path in ordered]
    return Listing({path: row for row, path in enumerate(ordered)}, labels, classes, test_start)


def _wrapper(images: set[PurePosixPath]) -> int:
    """How many folders lie around all class folders or parts."""
    skip = 0
    while all(len(path.parts) > skip + 2 for path in images) and len({path.parts[skip] for path in images}) == 1:
        skip += 1
    return skip


def _parts(place: Path, tops: set[str], images: set[PurePosixPath], skip: int) -> bool:
    """Whether the outermost folders are train and test; DatasetError where they are neither that nor classes."""
    if tops == set(_PARTS) and all(len(path.parts) > skip + 2 for path in images):
        return True
    if tops <= _LIKE_PARTS:
        raise DatasetError(
            f"{place}: {', '.join(sorted(tops))} are parts of a dataset, not classes, and hold no train/CLASS/ and "
            f"test/CLASS/ folders alone (validation images are drawn from train, data.n_val); it must be {WHAT}"
        )
    return False


def _walk_folder(root: Path) -> Iterator[Member]:
    def listed(folder: Path, inside: PurePosixPath) -> Iterator[Member]:
        with _readable(folder), os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
        for name, is_folder in found:
            path, file = inside / name, folder / name
            yield Member(path, None if is_folder else partial(read_bytes, file), is_folder)
            if is_folder and len(path.parts) < _DEEPEST and not name.startswith("."):
                yield from listed(file, path)

    return listed(root, PurePosixPath())


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be listed ({reason(error)}); check its permissions") from error
