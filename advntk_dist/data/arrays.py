"""Anybody's own images as arrays x and y, in the layouts that people have them in: checked and put together."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from advntk_dist.data.dataset import Dataset, channels_first, check_labels, describe
from advntk_dist.data.files import reason, require_path, require_room
from advntk_dist.errors import DatasetError
from advntk_dist.grid import spans
from advntk_dist.text import printable

LAYOUTS = (
    (("x", "y"), ("x_val", "y_val"), ("x_test", "y_test")),
    (("x_train", "y_train"), ("x_val", "y_val"), ("x_test", "y_test")),  # Keras
    (("train_images", "train_labels"), ("val_images", "val_labels"), ("test_images", "test_labels")),  # MedMNIST
)
"""Names of images and labels: of the training set, and where they are given of the validation set and the test set."""
CLASSES = "classes"
KNOWN = frozenset((CLASSES, *(name for layout in LAYOUTS for pair in layout for name in pair)))
"""Names of all arrays that mean something."""
WHAT = "with arrays x (n, H, W, C) or (n, H, W) uint8 and y (n,) integers"
"""What there should be at least, for messages."""

_MOST_UNNAMED = 65_536
"""Above this a label is taken for damage, not for a class, unless the file names its classes."""
_SCALES = (
    (0.0, 1.0, "np.rint(255 * {0})"),
    (0.0, 255.0, "np.rint({0})"),
    (-0.5, 0.5, "np.rint(255 * ({0} + 0.5))"),
    (-1.0, 1.0, "np.rint(127.5 * ({0} + 1))"),
)
"""Black, white, and the levels 0 to 255, of the scales that images of floats come in."""
_LEVEL = 0.1
"""How far from a whole level a float may be: half precision is off by 0.06."""
_BLOCK = 2**22
"""Values converted at a time."""
_LISTED = 6


@dataclass(frozen=True)
class Layout:
    """The arrays of a dataset by name: pairs of images and labels, and where there are parts of its own."""

    pairs: tuple[tuple[str, str], ...]
    has_val: bool
    has_test: bool

    @property
    def names(self) -> tuple[str, ...]:
        """All arrays to read."""
        return (*(name for pair in self.pairs for name in pair), CLASSES)


def choose_layout(names: Collection[str], place: Path, what: str) -> Layout:
    """Find the images and labels among the names of arrays.

    Parameters
    ----------
    names
        All arrays that are there.
    place
        Where they are, for messages.
    what
        What should be there, for messages.

    Raises
    ------
    DatasetError
        If there are no training images or labels, some of two layouts, labels without images or images without
        labels, or a validation set without a test set.
    """
    found = [layout for layout in LAYOUTS if set(layout[0]) & set(names)]
    if not found:
        held = _listed([repr(name) for name in sorted(names)]) or "nothing"
        raise DatasetError(f"{place}: no array x and no array y; it must be {what}; it holds {held}")
    if len(found) > 1:
        both = " and ".join(next(name for name in layout[0] if name in names) for layout in found)
        raise DatasetError(f"{place}: holds {both}, which are both training data; keep one of them")
    train, val, test = found[0]
    problems = [f"no array {name}; it must be {what}" for name in train if name not in names]
    for pair in (val, test):
        if len(set(pair) & set(names)) == 1:
            problems.append(f"{pair[0]} and {pair[1]} belong together, but only one is there")
    has_val, has_test = (pair[0] in names for pair in (val, test))
    if has_val and not has_test:
        problems.append(
            f"{val[0]} without {test[0]}: name the images that results are of {test[0]} and {test[1]} (validation "
            f"images are drawn from {train[0]}, data.n_val, where there are none)"
        )
    if problems:
        raise DatasetError(f"{place}: {'; '.join(problems)}")
    pairs = (train, *((val,) if has_val else ()), *((test,) if has_test else ()))
    return Layout(pairs, has_val, has_test)


def assemble(arrays: Mapping[str, np.ndarray], layout: Layout, place: Path) -> Dataset:
    """Make a dataset of named arrays; validation and test arrays, where there are any, become the publisher's parts.

    Parameters
    ----------
    arrays
        Images (n, H, W, C) or (n, H, W): uint8, or floats that are the 256 levels of 8 bits on a scale of 0 to 1, 0 to
        255, -0.5 to 0.5 or -1 to 1, which become these levels. Labels (n,) or (n, 1) integers. And optionally
        ``classes`` (k,) strings; without them they are "0", "1", ... up to the largest label, each with an image.
    layout
        Their names, as :func:`choose_layout` gives them.
    place
        Where they are from; its last part names the dataset.

    Raises
    ------
    DatasetError
        If an array has another type, shape or scale, or labels are no numbers of classes; names all that is wrong, each
        with the line that mends it.
    """
    problems: list[str] = []
    images, labels = [], []
    extent = _extent([arrays[x_name] for x_name, _ in layout.pairs])
    for x_name, y_name in layout.pairs:
        x, y = _images(arrays[x_name], x_name, extent, problems), _labels(arrays[y_name], y_name, problems)
        n_images, n_labels = (arrays[name].shape[:1] for name in (x_name, y_name))
        if n_images and n_labels and n_images != n_labels:
            problems.append(
                f"{x_name} has {n_images[0]} images but {y_name} {n_labels[0]} labels; give one label an image"
            )
        images.append(x)
        labels.append(y)
    known = [x for x in images if x is not None]
    shapes = {x_name: x.shape[1:] for x, (x_name, _) in zip(images, layout.pairs, strict=True) if x is not None}
    if len(set(shapes.values())) > 1:
        each = " but ".join(f"{name} has images of shape {shape}" for name, shape in shapes.items())
        problems.append(f"{each}; make them alike")
    whole = [y for y in labels if y is not None]
    classes: tuple[str, ...] = ()
    if len(whole) == len(labels):
        classes = _classes(arrays.get(CLASSES), whole, [name for _, name in layout.pairs], problems)
    if problems:
        raise DatasetError(f"{place}: {'; '.join(problems)}")
    x, y = (np.concatenate(parts) if len(parts) > 1 else parts[0] for parts in (known, whole))
    x.setflags(write=False)
    val_start = len(known[0]) if layout.has_val else None
    test_start = len(x) - len(known[-1]) if layout.has_test else None
    return Dataset(place.name, x, y, classes, test_start, val_start)


def _extent(arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    """The smallest and the largest float of all arrays, which have one scale; (0, 0) where none has floats."""
    floats = [x for x in arrays if x.dtype.kind == "f" and x.size]
    return min((float(x.min()) for x in floats), default=0.0), max((float(x.max()) for x in floats), default=0.0)


def _images(x: np.ndarray, name: str, extent: tuple[float, float], problems: list[str]) -> np.ndarray | None:
    """Images (n, H, W, C) uint8; None where they are none, which is added to the problems."""
    wanted = "it must be uint8 of shape (n, H, W, C) or (n, H, W), with at least one image"
    if x.ndim not in (3, 4) or x.size == 0:
        edge = math.isqrt(x.shape[1]) if x.ndim == 2 else 0
        square = f"; rows of {edge} x {edge} pixels are {name}.reshape(-1, {edge}, {edge})" if edge > 1 else ""
        mended = square if x.ndim == 2 and edge**2 == x.shape[1] else ""
        problems.append(f"{name} is {describe(x)}; {wanted}{mended}")
        return None
    if x.ndim == 4 and (wrong := channels_first(x.shape, name)) is not None:
        problems.append(wrong)
        return None
    if x.dtype.kind == "f":
        levels = _levels(x, name, extent, problems)
        if levels is None:
            return None
        x = levels
    elif x.dtype != np.uint8:
        problems.append(f"{name} is {describe(x)}; {wanted}: {_narrowed(x, name)}")
        return None
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


def _levels(x: np.ndarray, name: str, extent: tuple[float, float], problems: list[str]) -> np.ndarray | None:
    """Floats as the 256 levels that they are on a known scale that holds all arrays; None where they are not."""
    low, high = float(x.min()), float(x.max())
    about = f"{name} is {describe(x)} with values from {low:.4g} to {high:.4g}"
    if not np.isfinite([low, high]).all():
        axes = tuple(range(1, x.ndim))
        problems.append(
            f"{about}, which are not all finite; keep the images where np.isfinite({name}).all({axes}), with their "
            "labels"
        )
        return None
    fitting = [scale for scale in _SCALES if scale[0] <= extent[0] and extent[1] <= scale[1]]
    if low < high:
        for black, white, _ in fitting:
            if (levels := _on_scale(x, black, white)) is not None:
                return levels
    if not fitting:
        problems.append(f"{about}, which is no scale of pixels; images are uint8: {_stretched(name)}")
        return None
    black, white, line = fitting[0]
    why = "are not the 256 levels of 8 bits" if low < high else "do not tell their scale"
    problems.append(
        f"{about}, which {why}; images are uint8: where {black:g} is black and {white:g} white, {line.format(name)}"
        '.astype("uint8")'
    )
    return None


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


def _labels(y: np.ndarray, name: str, problems: list[str]) -> np.ndarray | None:
    """Labels (n,) int64; None where they are none, which is added to the problems."""
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
    problems.append(f"{name} is {describe(y)}; it must be integers of shape (n,){mended}")
    return None


def _classes(
    names: np.ndarray | None, labels: list[np.ndarray], y_names: list[str], problems: list[str]
) -> tuple[str, ...]:
    """Names of the classes; labels that have none, and classes that have no image, are added to the problems."""
    if names is not None:
        if names.dtype.kind != "U" or names.ndim != 1 or names.size == 0:
            problems.append(f"classes is {describe(names)}; it must be strings of shape (number of classes,)")
            return ()
        remedy = f"name every class in classes, or number them anew: {_numbered(y_names)}"
        for y, name in zip(labels, y_names, strict=True):
            try:
                check_labels(y, len(names), name, remedy)
            except DatasetError as error:
                problems.append(str(error))
        return tuple(str(name) for name in names)
    impossible = [_impossible(y, name, y_names) for y, name in zip(labels, y_names, strict=True)]
    if any(impossible):
        problems += filter(None, impossible)
        return ()
    present = np.unique(np.concatenate(labels)).tolist()
    n = present[-1] + 1 if present else 0
    if len(present) < n:
        problems.append(
            f"{' and '.join(y_names)}: {len(present)} classes ({_listed([str(label) for label in present])}), "
            f"which leaves {n - len(present)} of 0..{n - 1} without an image: number them anew ({_numbered(y_names)}), "
            f"or name all {n} in classes"
        )
    return tuple(str(label) for label in range(n))


def _impossible(y: np.ndarray, name: str, y_names: list[str]) -> str:
    """What is wrong with the first label that can be no number of a class; empty where there is none."""
    wrong = np.flatnonzero((y < 0) | (y >= _MOST_UNNAMED))
    if not wrong.size:
        return ""
    value = y[wrong[0]]
    anew = f"number the classes anew: {_numbered(y_names)}"
    if value < 0:
        anew = f"where that means no label, keep the images of {name} >= 0 alone, else {anew}"
    return f"{name}: image {wrong[0]} has label {value}, but classes are numbered from 0 on; {anew}"


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


_WHAT = f"a .npz file {WHAT}"
_BROKEN_ARCHIVE = (
    OSError,
    ValueError,  # object arrays, bad headers
    EOFError,
    KeyError,
    MemoryError,  # a header with an impossible shape
    RuntimeError,  # encrypted members
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(path: Path | None) -> Dataset:
    """Read a .npz file with arrays x and y, or Keras' x_train and y_train, or MedMNIST's train_images and train_labels.

    Validation and test arrays (``x_val``, ``y_val``, ``x_test``, ``y_test``, or MedMNIST's), where present, become the
    publisher's own parts. Class names come from the string array ``classes``, or are "0", "1", ... up to the largest
    label. Arrays under other names are left alone. For images of floats see :func:`assemble`.

    Raises
    ------
    DatasetError
        If the file is cut short, damaged, not a .npz, lacks images or labels, holds more than this machine's memory, or
        holds arrays of another type, shape or scale; nothing in it is ever unpickled.
    """
    place = require_path(path, "npz", _WHAT)
    arrays, layout = _load(place)
    return assemble(arrays, layout, place)


def holds_npz(path: Path) -> bool:
    """Whether a file is a zip archive with at least one .npy member."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _load(place: Path) -> tuple[dict[str, np.ndarray], Layout]:
    try:
        loaded = np.load(place, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DatasetError(f"{place}: is a single array (.npy); it must be {_WHAT}")
        with loaded as archive:
            layout = choose_layout(archive.files, place, _WHAT)
            wanted = [name for name in layout.names if name in archive.files]
            held = [] if archive.zip is None else archive.zip.infolist()
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in held}
            require_room(sum(sizes.get(name, 0) for name in wanted), str(place))
            arrays = {name: archive[name] for name in wanted}
    except DatasetError:
        raise
    except _BROKEN_ARCHIVE as error:
        raise DatasetError(
            f"{place}: not a readable .npz file ({reason(error)}); it is cut short, damaged, "
            f"of another format, or holds Python objects; it must be {_WHAT}"
        ) from error
    raw = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if raw:
        raise DatasetError(f"{place}: {raw[0]} is not a NumPy array; it must be {_WHAT}")
    return arrays, layout
