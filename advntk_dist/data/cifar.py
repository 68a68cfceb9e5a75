"""CIFAR-10 and CIFAR-100 in both of their published layouts, from a folder or from the archive as downloaded.

Binary layout: records of label bytes and 3,072 pixel bytes. Python layout: pickled dicts with ``data``
(n, 3072) uint8 and a list of labels. Pixels are channel-major in both: 1,024 red, 1,024 green, 1,024 blue, each
row by row. The labels of CIFAR-100 are the fine ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from advntk_dist.data.dataset import Dataset, check_labels, describe
from advntk_dist.data.files import archive_holds, archive_members, read_bytes, require_path
from advntk_dist.data.unpickle import load_pickled_arrays
from advntk_dist.errors import DatasetError
from advntk_dist.text import printable

_SIDE, _CHANNELS = 32, 3
_PIXELS = _SIDE * _SIDE * _CHANNELS
_SUFFIXES = (".bin", "")
"""Binary first: where both layouts lie side by side (they hold the same images), no pickle needs opening."""


def read_cifar(kind: CifarKind, path: Path | None) -> Dataset:
    """Read CIFAR-10 or CIFAR-100: the rows of the training files in their order, then those of the test set.

    Parameters
    ----------
    kind
        ``CIFAR10``, or ``CIFAR100``, of which the 100 fine labels are read.
    path
        Folder of either layout, the folder around it or around the archive, or the archive (.tar.gz or .tar).

    Returns
    -------
    Dataset
        Images (n, 32, 32, 3) uint8.

    Raises
    ------
    DatasetError
        If a file is missing, cut short, damaged, or not of this format; the message names the file.
    """
    place = _archive_within(require_path(path, kind.name, kind.what), kind)
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, where, content in _files(place, kind):
        batches[name] = (_parse_binary if name.endswith(".bin") else _parse_python)(content, where, kind)
    suffix = next((s for s in _SUFFIXES if any(batch + s in batches for batch in kind.batches)), None)
    if suffix is None:
        raise DatasetError(f"{place}: holds none of {kind.title}'s batches; set data.path to {kind.what}")
    missing = [batch + suffix for batch in kind.batches if batch + suffix not in batches]
    if missing:
        raise DatasetError(
            f"{place}: {', '.join(missing)} missing; {kind.title} has {len(kind.batches)} files, get it again"
        )
    pieces = [("test" if batch == kind.test else "train", *batches[batch + suffix]) for batch in kind.batches]
    return Dataset.joined(kind.name, pieces, kind.classes)


def _wanted(kind: CifarKind) -> frozenset[str]:
    return frozenset(batch + suffix for batch in kind.batches for suffix in _SUFFIXES)


def holds_cifar(kind: CifarKind, path: Path) -> bool:
    """Whether a folder or archive has at least one file with a name of this kind."""
    if path.is_dir():
        # Plain files: folders named train and test belong to other formats.
        found = any((path / folder / name).is_file() for folder in (".", *kind.folders) for name in _wanted(kind))
        return found or _archive_within(path, kind) != path
    return archive_holds(path, _wanted(kind))


def _archive_within(place: Path, kind: CifarKind) -> Path:
    """The archive, where a folder holds that and no batches; else the place itself."""
    if not place.is_dir() or any((place / folder / name).exists() for _, folder, name in _places(kind)):
        return place
    return next((place / name for name in kind.archives if (place / name).is_file()), place)


def _places(kind: CifarKind) -> Iterator[tuple[str, str, str]]:
    """Yield (suffix, folder, file name) in the order of preference."""
    for suffix in _SUFFIXES:
        for folder in (".", *kind.folders):
            for batch in kind.batches:
                yield suffix, folder, batch + suffix


def _files(place: Path, kind: CifarKind) -> Iterator[tuple[str, str, bytes]]:
    """Yield (batch file name, where it lies, contents)."""
    if not place.is_dir():
        for member, content in archive_members(place, _wanted(kind)):
            yield PurePosixPath(member).name, f"{place}:{printable(member)}", content
        return
    first: tuple[str, str] | None = None
    for suffix, folder, name in _places(kind):
        if first in (None, (suffix, folder)) and (place / folder / name).exists():
            first = suffix, folder
            yield name, str(place / folder / name), read_bytes(place / folder / name)


def _parse_binary(content: bytes, where: str, kind: CifarKind) -> tuple[np.ndarray, np.ndarray]:
    heads = len(kind.label_limits)
    record = heads + _PIXELS
    if not content or len(content) % record:
        raise DatasetError(
            f"{where}: {len(content):,} bytes are not a whole number of {record:,}-byte {kind.title} records; "
            "it is cut short or of another format, get it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    for column, limit in enumerate(kind.label_limits):
        check_labels(records[:, column], limit, where)
    return _images(records[:, heads:]), records[:, heads - 1].astype(np.int64)


def _parse_python(content: bytes, where: str, kind: CifarKind) -> tuple[np.ndarray, np.ndarray]:
    fields = load_pickled_arrays(content, where)
    data, labels = fields.get("data"), fields.get(kind.label_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_PIXELS,):
        raise DatasetError(
            f"{where}: 'data' is {describe(data)}, not uint8 of shape (n, {_PIXELS}); "
            f"it is not a {kind.title} batch, get it again"
        )
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DatasetError(
            f"{where}: {kind.label_key!r} is {describe(labels)}, not a list of whole numbers; "
            f"it is not a {kind.title} batch, get it again"
        )
    if len(labels) != len(data) or not labels:
        raise DatasetError(f"{where}: {len(data)} images and {len(labels)} labels; it is damaged, get it again")
    numbers = np.array(labels, dtype=object)
    check_labels(numbers, len(kind.classes), where)
    return _images(data), numbers.astype(np.int64)


def _images(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.reshape(-1, _CHANNELS, _SIDE, _SIDE).transpose(0, 2, 3, 1))


@dataclass(frozen=True)
class CifarKind:
    """What tells one CIFAR dataset from the other.

    Parameters
    ----------
    name, title
        Its name here and in messages.
    train, test
        File names without suffix, training files in order; ``.bin`` follows in the binary layout.
    label_limits
        Numbers of labels that the bytes before the pixels of a binary record count in; the last one is the class.
    label_key
        Key of the labels in the python layout.
    classes
        Class names; the label is the position.
    folders, archives
        What the files lie in as published: binary layout, python layout.
    """

    name: str
    title: str
    train: tuple[str, ...]
    test: str
    label_limits: tuple[int, ...]
    label_key: str
    classes: tuple[str, ...]
    folders: tuple[str, str]
    archives: tuple[str, str]

    @property
    def batches(self) -> tuple[str, ...]:
        """All files without suffix, in the order of the rows."""
        return (*self.train, self.test)

    @property
    def what(self) -> str:
        """What to give, for messages."""
        return (
            f"the folder {' or '.join(self.folders)}, the folder around it, or {' or '.join(self.archives)} "
            f"(advntk data fetch {self.name})"
        )


CIFAR10 = CifarKind(
    name="cifar10",
    title="CIFAR-10",
    train=tuple(f"data_batch_{k}" for k in range(1, 6)),
    test="test_batch",
    label_limits=(10,),
    label_key="labels",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    folders=("cifar-10-batches-bin", "cifar-10-batches-py"),
    archives=("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
)

_CLASSES_100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""

CIFAR100 = CifarKind(
    name="cifar100",
    title="CIFAR-100",
    train=("train",),
    test="test",
    label_limits=(20, 100),
    label_key="fine_labels",
    classes=tuple(_CLASSES_100.split()),
    folders=("cifar-100-binary", "cifar-100-python"),
    archives=("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
)
