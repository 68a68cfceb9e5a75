"""The table of dataset formats, and the function that turns a name or a path into a Dataset.

A further format is one module with a reader (and, where its files can be told by content, a recogniser) and
one line in ``READERS``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advntk_dist.data.arrays import holds_npz, holds_zarr, read_npz, read_zarr
from advntk_dist.data.cifar import CIFAR10, CIFAR100, holds_cifar, read_cifar
from advntk_dist.data.dataset import Dataset
from advntk_dist.data.files import require_plain
from advntk_dist.data.folders import holds_class_folders
from advntk_dist.data.idx import FASHION_MNIST, MNIST, holds_idx, read_idx
from advntk_dist.data.sources import fetched
from advntk_dist.data.svhn import holds_svhn, read_svhn
from advntk_dist.errors import DatasetError
from advntk_dist.text import did_you_mean


@dataclass(frozen=True)
class Reader:
    """One format of datasets.

    Parameters
    ----------
    read
        Function that reads a file or folder, or what needs none where the path is None.
    recognises
        Function that tells whether a file or folder is of this format; None where only its name chooses the format.
    read_resized
        Function that reads images and brings them to an edge in pixels one by one, so that larger ones are never all in
        memory, and images of several sizes can be read at all; None where images are resized after they are read.
    """

    read: Callable[[Path | None], Dataset]
    recognises: Callable[[Path], bool] | None = None
    read_resized: Callable[[Path | None, int], Dataset] | None = None


def _read_images(path: Path | None, edge: int | None = None) -> Dataset:
    from advntk_dist.data.images import read_images  # Pillow is loaded only where it is used

    return read_images(path, edge)


def read_digits(path: Path | None) -> Dataset:
    """Return the digits as (1797, 8, 8, 1) uint8: grey levels 0..16 scaled by ``round(v * 255 / 16)``.

    Raises
    ------
    DatasetError
        If a path is given: these images come with scikit-learn.
    """
    if path is not None:
        raise DatasetError(f"dataset 'digits' comes with scikit-learn and reads no file: leave out data.path ({path})")
    images, labels = _table()
    x = np.rint(images.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
    return Dataset("digits", x, labels.astype(np.int64), tuple(str(digit) for digit in range(10)))


def _table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Grey levels (1797, 64) and labels (1797,), from scikit-learn's file, or where it lies elsewhere by its reader.

    Importing the reader takes three seconds, most of the time until the first line of the first command.
    """
    found = find_spec("sklearn")
    folders = found.submodule_search_locations if found and found.submodule_search_locations else []
    for file in (Path(folder, "datasets", "data", "digits.csv.gz") for folder in folders):
        if file.is_file():
            rows = np.loadtxt(file, delimiter=",")
            return rows[:, :-1], rows[:, -1]
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images, labels


READERS: dict[str, Reader] = {
    "digits": Reader(read_digits),
    "cifar10": Reader(partial(read_cifar, CIFAR10), partial(holds_cifar, CIFAR10)),
    "cifar100": Reader(partial(read_cifar, CIFAR100), partial(holds_cifar, CIFAR100)),
    "svhn": Reader(read_svhn, holds_svhn),
    "mnist": Reader(partial(read_idx, MNIST), partial(holds_idx, MNIST)),
    "fashion-mnist": Reader(partial(read_idx, FASHION_MNIST), partial(holds_idx, FASHION_MNIST)),
    "npz": Reader(read_npz, holds_npz),
    "zarr": Reader(read_zarr, holds_zarr),
    "images": Reader(_read_images, holds_class_folders, _read_images),
}


def load_dataset(
    name: str,
    path: str | Path | None = None,
    *,
    resize: int | None = None,
    class_subset: Sequence[str | int] | None = None,
    drop_duplicates: bool = False,
) -> Dataset:
    """Load a dataset by name, or from a file or folder recognised by its content.

    Parameters
    ----------
    name
        A name of ``READERS`` ("digits" is embedded), a path ending in ``.npz``, or any path to a file or folder in
        one of these formats. A name in the table wins over a file of the same name; write ``./cifar10`` for
        the file.
    path
        Where the files of a named dataset are; None for an embedded dataset, where ``name`` is the path, or
        where ``advntk data fetch`` put them. Beside a relative path as a name it wins, if both end alike: it is where
        that path led when the run began.
    resize
        Edge in pixels to bring the images to: the middle square, scaled, antialiased. None leaves them.
    class_subset
        Names or numbers of at least two classes to keep; labels are numbered anew. None keeps all.
    drop_duplicates
        Leave out every image that equals an earlier one, after all of the above; training images come first.

    Returns
    -------
    Dataset
        uint8 images (n, H, W, C), int64 labels (n,), class names.

    Raises
    ------
    DatasetError
        If the name is unknown, a file is missing, or its content is damaged or of another format.
    """
    from advntk_dist.data import duplicates, select  # Pillow is loaded only where it is used

    reader, place = _find(name, path)
    if resize is not None and reader.read_resized is not None:
        data = reader.read_resized(place, resize)
    else:
        data = reader.read(place)
    if class_subset is not None:
        data = select.keep_classes(data, class_subset)
    if resize is not None:
        data = select.resize(data, resize)
    return duplicates.drop_duplicates(data) if drop_duplicates else data


def _leads_to(name: str, path: str) -> bool:
    """Whether a path may be where a relative path used as a name once led: stored runs have both."""
    if os.path.isabs(os.path.expanduser(name)):
        return False
    return os.path.basename(os.path.normpath(name)) in (os.path.basename(os.path.normpath(path)), os.curdir, os.pardir)


def _find(name: str, path: str | Path | None) -> tuple[Reader, Path | None]:
    """The reader of a name or a path, and what it should read."""
    if name in READERS:
        return READERS[name], fetched(name) if path is None else Path(os.path.expanduser(path))
    if path is not None and _leads_to(name, str(path)):
        name, path = str(path), None
    place = os.path.expanduser(name)
    is_npz = place.endswith(".npz")
    if not name or not (is_npz or os.path.exists(place)):
        raise DatasetError(
            f"unknown dataset {name!r}{did_you_mean(name, READERS)}: data.name must be one of {', '.join(READERS)}, "
            "or a path to an existing file or folder; a relative path counts from the working folder, and where its "
            "images lie elsewhere now, data.path says where"
        )
    if path is not None:
        raise DatasetError(
            f"data.name {name!r} is itself a path: leave out data.path ({path}), "
            f"or set data.name to one of {', '.join(READERS)}"
        )
    require_plain(Path(place))
    if is_npz:
        return READERS["npz"], Path(place)
    for reader in READERS.values():
        if reader.recognises is not None and reader.recognises(Path(place)):
            return reader, Path(place)
    images = "; images of your own lie in one folder per class, CLASS/IMAGE.png" if os.path.isdir(place) else ""
    raise DatasetError(
        f"{place}: its content is of no known format ({', '.join(READERS)}), or it is damaged{images}; "
        "set data.name to the format and data.path to this path to learn what is wrong with it"
    )
