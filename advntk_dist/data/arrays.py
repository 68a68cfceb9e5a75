"""Images and labels as named arrays, in a .npz file or a Zarr group: read, checked, and joined to a dataset.

Every problem of the arrays is collected, and most are named with the line of Python that mends them.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from advntk_dist.data.dataset import Dataset, channels_first, check_labels, describe
from advntk_dist.data.files import BROKEN_ARCHIVE, dataset_errors, require_path, require_plain_files, require_room
from advntk_dist.errors import DatasetError
from advntk_dist.grid import spans
from advntk_dist.text import printable

T = TypeVar("T")
Layout = Mapping[str, tuple[str, str]]
"""Names of the arrays of images and labels, by part: "train", and where they are given "val" and "test"."""

_LAYOUTS: tuple[Layout, ...] = (
    {"train": ("x", "y"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {"train": ("x_train", "y_train"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")},  # Keras
    {part: (f"{part}_images", f"{part}_labels") for part in ("train", "val", "test")},  # MedMNIST
)
_CLASSES = "classes"
_WHAT = "with arrays x (n, H, W, C) or (n, H, W) uint8 and y (n,) integers"
_NPZ = f"a .npz file {_WHAT}"
_ZARR = f"a Zarr group {_WHAT}"
_MARKERS = ("zarr.json", ".zgroup")
_BROKEN_NPZ = (
    *BROKEN_ARCHIVE,
    KeyError,
    MemoryError,  # a header with an impossible shape
    SyntaxError,
    tokenize.TokenError,
)
_MOST_UNNAMED = 65_536
"""Smallest label that is taken for damage, not for a class, unless the file names its classes."""
_SCALES = (
    (0.0, 1.0, "np.rint(255 * {0})"),
    (0.0, 255.0, "np.rint({0})"),
    (-0.5, 0.5, "np.rint(255 * ({0} + 0.5))"),
    (-1.0, 1.0, "np.rint(127.5 * ({0} + 1))"),
)
"""Black, white, and the line that makes the levels 0 to 255, of each scale that images of floats come in."""
_LEVEL = 0.1
"""Largest distance of a float from a whole level: half precision is off by 0.06."""
_BLOCK = 2**22
"""Values converted at a time."""
_LISTED = 6
"""Names or labels that a message lists at the most."""


def read_npz(path: Path | None) -> Dataset:
    """Read a .npz file with arrays x and y, or Keras' x_train and y_train, or MedMNIST's train_images and train_labels.

    Validation and test arrays (``x_val``, ``y_val``, ``x_test``, ``y_test``, or MedMNIST's), where present, become the
    publisher's own parts. Class names come from the string array ``classes``, or are "0", "1", ... up to the largest
    label. Arrays under other names are not read. For images of floats see :func:`_assemble`.

    Raises
    ------
    DatasetError
        If the file is cut short, damaged, not a .npz, lacks images or labels, holds more than this machine's memory, or
        holds arrays of another type, shape or scale; nothing in it is ever unpickled.
    """
    place = require_path(path, "npz", _NPZ)
    remedy = f"it is cut short, damaged, of another format, or holds Python objects; it must be {_NPZ}"
    with dataset_errors(f"{place}: not a readable .npz file", remedy, _BROKEN_NPZ):
        loaded = np.load(place, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DatasetError(f"{place}: is a single array (.npy); it must be {_NPZ}")
        with loaded as archive:
            layout = _choose_layout(archive.files, place, _NPZ)
            wanted = [name for name in (*_names(layout), _CLASSES) if name in archive.files]
            held = [] if archive.zip is None else archive.zip.infolist()
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in held}
            require_room(sum(sizes.get(name, 0) for name in wanted), str(place))
            arrays = {name: archive[name] for name in wanted}
    raw = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if raw:
        raise DatasetError(f"{place}: {raw[0]} is not a NumPy array; it must be {_NPZ}")
    return _assemble(arrays, layout, place)


def holds_npz(path: Path) -> bool:
    """Whether a file is a zip archive with at least one .npy member."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def read_zarr(path: Path | None) -> Dataset:
    """Read a Zarr group (format 2 or 3), a chunk's rows at a time; names and meanings as for :func:`read_npz`.

    Class names are the group's attribute ``classes`` (a list of strings), or "0", "1", ... up to the largest label.

    Raises
    ------
    DatasetError
        If the folder is no Zarr group, lacks images or labels, holds arrays of another type, shape or scale or more
        than this machine's memory, or a chunk is damaged, absent or no plain file. Zarr reads an absent chunk as its
        fill value, so nothing else would tell it from black images; for the same reason arrays in shards are refused,
        whose absent chunks cannot be counted.
    """
    place = require_path(path, "zarr", _ZARR)
    if not holds_zarr(place):
        raise DatasetError(f"{place}: no Zarr group (it has neither zarr.json nor .zgroup); it must be {_ZARR}")
    require_plain_files(place)
    import zarr  # takes a third of a second to import

    with dataset_errors(f"{place}: not a readable Zarr group", f"it must be {_ZARR}"):
        group = zarr.open_group(place, mode="r")
        classes = group.attrs.get(_CLASSES)
        names = list(group)
        layout = _choose_layout(names, place, _ZARR)
        found = {name: group[name] for name in _names(layout)}
    arrays = {name: _read_array(array, f"{place}/{name}") for name, array in found.items()}
    if classes is not None:
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise DatasetError(f"{place}: the attribute classes must be a list of strings, got {classes!r:.80}")
        arrays[_CLASSES] = np.array(classes)
    elif _CLASSES in names:
        raise DatasetError(f"{place}: classes is an array; give it as an attribute of the group, a list of strings")
    return _assemble(arrays, layout, place)


def holds_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group or array."""
    return any((path / marker).is_file() for marker in _MARKERS)


def _read_array(array: Any, where: str) -> np.ndarray:
    """The values of a Zarr array of numbers, none of whose chunks is absent or damaged."""
    if not hasattr(array, "chunks"):
        raise DatasetError(f"{where}: is a group, not an array; it must be {_ZARR}")
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise DatasetError(f"{where}: is {array.dtype} of shape {array.shape}; it must be {_ZARR}")
    if getattr(array, "shards", None) is not None:
        raise DatasetError(f"{where}: is stored in shards, in which absent chunks cannot be found; write it without")
    absent = array.nchunks - array.nchunks_initialized
    if absent:
        raise DatasetError(
            f"{where}: {absent} of {array.nchunks} chunks are absent and would read as {array.fill_value}; finish or "
            "repeat the copy, or write it with config={'write_empty_chunks': True} if they hold just that value"
        )
    require_room(max(math.prod(array.shape), math.prod(array.chunks)) * array.dtype.itemsize, where)
    values = np.empty(array.shape, array.dtype)
    for rows in spans(array.shape[0], array.chunks[0]):
        with dataset_errors(f"{where}: rows {rows.start} to {rows.stop - 1} cannot be read", "write them again"):
            values[rows] = array[rows]
    return values


def _names(layout: Layout) -> list[str]:
    return [name for pair in layout.values() for name in pair]


def _choose_layout(names: Collection[str], place: Path, what: str) -> Layout:
    """Find the images and labels among the names of arrays.

    Parameters
    ----------
    names
        Names of all arrays that are there.
    place
        File or folder that holds them, for messages.
    what
        Description of a file or folder that could be read, for messages.

    Raises
    ------
    DatasetError
        If there are no training images or labels, some of two layouts, labels without images or images without
        labels, or a validation set without a test set.
    """
    found = [layout for layout in _LAYOUTS if set(layout["train"]) & set(names)]
    if not found:
        held = _listed([repr(name) for name in sorted(names)]) or "nothing"
        raise DatasetError(f"{place}: no array x and no array y; it must be {what}; it holds {held}")
    if len(found) > 1:
        both = " and ".join(next(name for name in layout["train"] if name in names) for layout in found)
        raise DatasetError(f"{place}: holds {both}, which are both training data; keep one of them")
    train, val, test = found[0].values()
    problems = [f"no array {name}; it must be {what}" for name in train if name not in names]
    problems += [
        f"{x} and {y} belong together, but only one is there" for x, y in (val, test) if (x in names) != (y in names)
    ]
    if val[0] in names and test[0] not in names:
        problems.append(
            f"{val[0]} without {test[0]}: name the images that results are of {test[0]} and {test[1]} (validation "
            f"images are drawn from {train[0]}, data.n_val, where there are none)"
        )
    if problems:
        raise DatasetError(f"{place}: {'; '.join(problems)}")
    return {part: pair for part, pair in found[0].items() if pair[0] in names}


class _Problems(list[str]):
    """What is wrong with some arrays, in words."""

    def checked(self, check: Callable[..., T], *arguments: Any) -> T | None:
        """What a check returns; None where it raises DatasetError, whose message is added to the problems."""
        try:
            return check(*arguments)
        except DatasetError as error:
            self.append(str(error))
            return None


def _assemble(arrays: Mapping[str, np.ndarray], layout: Layout, place: Path) -> Dataset:
    """Make a dataset of named arrays; validation and test arrays, where there are any, become the publisher's parts.

    Parameters
    ----------
    arrays
        Images (n, H, W, C) or (n, H, W): uint8, or floats that are the 256 levels of 8 bits on a scale of 0 to 1, 0 to
        255, -0.5 to 0.5 or -1 to 1, which become these levels. Labels (n,) or (n, 1) integers. And optionally
        ``classes`` (k,) strings; without them they are "0", "1", ... up to the largest label, each with an image.
    layout
        Names of the images and labels, as :func:`_choose_layout` gives them.
    place
        File or folder that they are from; its last part names the dataset.

    Raises
    ------
    DatasetError
        If an array has another type, shape or scale, or labels are no numbers of classes; names all that is wrong, each
        with the line that mends it.
    """
    problems = _Problems()
    extent = _extent(arrays[x_name] for x_name, _ in layout.values())
    images, labels = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for x_name, y_name in layout.values():
        if (x := problems.checked(_images, arrays[x_name], x_name, extent)) is not None:
            images[x_name] = x
        if (y := problems.checked(_labels, arrays[y_name], y_name)) is not None:
            labels[y_name] = y
        n_images, n_labels = (arrays[name].shape[:1] for name in (x_name, y_name))
        if n_images and n_labels and n_images != n_labels:
            problems.append(
                f"{x_name} has {n_images[0]} images but {y_name} {n_labels[0]} labels; give one label an image"
            )
    if len({x.shape[1:] for x in images.values()}) > 1:
        each = " but ".join(f"{name} has images of shape {x.shape[1:]}" for name, x in images.items())
        problems.append(f"{each}; make them alike")
    classes: tuple[str, ...] = ()
    if len(labels) == len(layout):
        classes = _classes(arrays.get(_CLASSES), labels, problems)
    if problems:
        raise DatasetError(f"{place}: {'; '.join(problems)}")
    return Dataset.joined(place.name, [(part, images[x], labels[y]) for part, (x, y) in layout.items()], classes)


def _extent(arrays: Iterable[np.ndarray]) -> tuple[float, float]:
    """The smallest and the largest float of all arrays, which have one scale; (0, 0) where none has floats."""
    floats = [x for x in arrays if x.dtype.kind == "f" and x.size]
    return min((float(x.min()) for x in floats), default=0.0), max((float(x.max()) for x in floats), default=0.0)


def _images(x: np.ndarray, name: str, extent: tuple[float, float]) -> np.ndarray:
    """Images (n, H, W, C) uint8 of an array, where ``extent`` is the smallest and the largest float of all arrays."""
    wanted = "it must be uint8 of shape (n, H, W, C) or (n, H, W), with at least one image"
    if x.ndim not in (3, 4) or x.size == 0:
        edge = math.isqrt(x.shape[1]) if x.ndim == 2 else 0
        square = f"; rows of {edge} x {edge} pixels are {name}.reshape(-1, {edge}, {edge})"
        raise DatasetError(f"{name} is {describe(x)}; {wanted}{square if edge > 1 and edge**2 == x.shape[1] else ''}")
    if x.ndim == 4 and (wrong := channels_first(x.shape, name)) is not None:
        raise DatasetError(wrong)
    if x.dtype.kind == "f":
        x = _levels(x, name, extent)
    elif x.dtype != np.uint8:
        raise DatasetError(f"{name} is {describe(x)}; {wanted}: {_narrowed(x, name)}")
    return x if x.ndim == 4 else x[..., None]


def _narrowed(x: np.ndarray, name: str) -> str:
    """The line that turns integers or truth values into uint8."""
    if x.dtype.kind == "b":
        return f'255 * {name}.astype("uint8")'
    if x.dtype.kind not in "iu":
        return "these are no values of pixels"
    low, high = int(x.min()), int(x.max())
    if low >= 0 and high <= 255:
        return f'{name}.astype("uint8")'
    return f"values go from {low} to {high}, of which {_stretched(name)} makes 0 to 255"


def _stretched(name: str) -> str:
    return f'np.rint(255.0 * ({name} - {name}.min()) / ({name}.max() - {name}.min())).astype("uint8")'


def _levels(x: np.ndarray, name: str, extent: tuple[float, float]) -> np.ndarray:
    """Floats as the 256 levels (uint8) that they are on a known scale that holds all arrays."""
    low, high = float(x.min()), float(x.max())
    about = f"{name} is {describe(x)} with values from {low:.4g} to {high:.4g}"
    if not np.isfinite([low, high]).all():
        axes = tuple(range(1, x.ndim))
        raise DatasetError(
            f"{about}, which are not all finite; keep the images where np.isfinite({name}).all({axes}), with their "
            "labels"
        )
    fitting = [scale for scale in _SCALES if scale[0] <= extent[0] and extent[1] <= scale[1]]
    if not fitting:
        raise DatasetError(f"{about}, which is no scale of pixels; images are uint8: {_stretched(name)}")
    if low < high:
        for black, white, _ in fitting:
            if (levels := _on_scale(x, black, white)) is not None:
                return levels
    black, white, line = fitting[0]
    why = "are not the 256 levels of 8 bits" if low < high else "do not tell their scale"
    raise DatasetError(
        f"{about}, which {why}; images are uint8: where {black:g} is black and {white:g} white, {line.format(name)}"
        '.astype("uint8")'
    )


def _on_scale(x: np.ndarray, black: float, white: float) -> np.ndarray | None:
    """The levels (as ``x``) uint8, None where a value lies between two of them."""
    levels = np.empty(x.shape, np.uint8)
    for rows in spans(len(x), max(1, _BLOCK // x[:1].size)):
        exact = (x[rows].astype(np.float64) - black) * (255.0 / (white - black))
        nearest = np.rint(exact)
        if np.abs(exact - nearest).max() > _LEVEL:
            return None
        levels[rows] = nearest
    return levels


def _labels(y: np.ndarray, name: str) -> np.ndarray:
    """Labels (n,) int64 of an array (n,) or (n, 1) of integers."""
    column = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if column.ndim == 1 and column.dtype.kind in "iu":
        return column.astype(np.int64)
    mended = ""
    if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "biuf":
        ones = ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all()
        mended = f": {name}.argmax(axis=1)" if ones else ", one label an image"
    elif column.ndim == 1 and column.dtype.kind in "bf":
        whole = column.dtype.kind == "b" or (np.isfinite(column).all() and (column == np.rint(column)).all())
        mended = f": {name}.astype(int)" if whole else ", numbers of classes and not values to be regressed"
    elif column.ndim == 1 and column.dtype.kind in "US":
        mended = f": {_numbered([name])}"
    raise DatasetError(f"{name} is {describe(y)}; it must be integers of shape (n,){mended}")


def _classes(names: np.ndarray | None, labels: Mapping[str, np.ndarray], problems: _Problems) -> tuple[str, ...]:
    """Names of the classes; labels that have none, and classes that have no image, are added to the problems."""
    anew = _numbered(list(labels))
    if names is not None:
        if names.dtype.kind != "U" or names.ndim != 1 or names.size == 0:
            problems.append(f"classes is {describe(names)}; it must be strings of shape (number of classes,)")
            return ()
        for name, y in labels.items():
            problems.checked(
                check_labels, y, len(names), name, f"name every class in classes, or number them anew: {anew}"
            )
        return tuple(str(name) for name in names)
    impossible = [wrong for name, y in labels.items() if (wrong := _impossible(y, name, anew))]
    if impossible:
        problems += impossible
        return ()
    present = np.unique(np.concatenate(list(labels.values()))).tolist()
    n = present[-1] + 1 if present else 0
    if len(present) < n:
        problems.append(
            f"{' and '.join(labels)}: {len(present)} classes ({_listed([str(label) for label in present])}), "
            f"which leaves {n - len(present)} of 0..{n - 1} without an image: number them anew ({anew}), "
            f"or name all {n} in classes"
        )
    return tuple(str(label) for label in range(n))


def _impossible(y: np.ndarray, name: str, anew: str) -> str:
    """What is wrong with the first label that can be no number of a class; empty where there is none."""
    wrong = np.flatnonzero((y < 0) | (y >= _MOST_UNNAMED))
    if not wrong.size:
        return ""
    value = y[wrong[0]]
    mended = f"number the classes anew: {anew}"
    if value < 0:
        mended = f"where that means no label, keep the images of {name} >= 0 alone, else {mended}"
    return f"{name}: image {wrong[0]} has label {value}, but classes are numbered from 0 on; {mended}"


def _numbered(y_names: list[str]) -> str:
    """The line that numbers the classes of labels from 0 on; its ``classes`` are to be saved beside them."""
    if len(y_names) == 1:
        line = f"classes, {y_names[0]} = np.unique({y_names[0]}, return_inverse=True)"
    else:
        all_of = ", ".join(y_names)
        line = (
            f"classes = np.unique(np.concatenate([{all_of}])); {all_of} = (np.searchsorted(classes, y) for y in "
            f"({all_of}))"
        )
    return f"{line}, with classes=classes.astype(str) in the file"


def _listed(items: list[str]) -> str:
    shown = items if len(items) <= _LISTED else [*items[: _LISTED - 2], "...", items[-1]]
    return printable(", ".join(shown))
