"""Image files in class folders, on disk or in an archive that is never unpacked, as one array of bytes.

Grey images give one channel, or three equal ones where other images of the set have colours. Palettes become
colours. The orientation that the metadata give (EXIF) is applied. Transparency is refused unless every pixel is opaque,
and so are 16-bit samples, which would lose precision unasked, and animations.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Set
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from advntk_dist.data.dataset import Dataset
from advntk_dist.data.files import dataset_errors, require_path, require_room
from advntk_dist.data.folders import WHAT, list_images, walk
from advntk_dist.data.select import resize_image
from advntk_dist.errors import DatasetError

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_GREY = frozenset(("1", "L", "LA"))
_DEEP = frozenset(("I", "F", "I;16", "I;16L", "I;16B", "I;16N"))
_BITS_PER_SAMPLE = 258
"""Number of the TIFF tag that gives the bits of each sample."""
_PNG_DEPTH = 24
"""Position of the byte of a PNG file that gives the bits of a sample."""


def read_images(path: Path | None, edge: int | None = None) -> Dataset:
    """Read images in class folders, ordered by part, class and file name.

    Parameters
    ----------
    path
        Folder, .tar, .tar.gz or .zip with ``CLASS/image``, or with ``train/CLASS/image``, ``test/CLASS/image`` and
        possibly ``val/CLASS/image``; folders around these do no harm. Classes are numbered in the order of their
        sorted names.
    edge
        Side in pixels to bring each image to while it is read; None where all have one size.

    Returns
    -------
    Dataset
        The same for a folder and for any archive of it, its name apart.

    Raises
    ------
    DatasetError
        As :func:`list_images`, or if a file is no image, damaged, of another size than the first, transparent,
        of 16 bits or animated.
    """
    place = require_path(path, "images", WHAT)
    listing = list_images(place)
    n = len(listing.labels)
    x = np.empty((n, 0, 0, 1), np.uint8)
    first: PurePosixPath | None = None
    missing = set(listing.rows)
    for name, pixels in _decoded(place, listing.rows.keys(), edge):
        if first is None:
            first = name
            require_room(n * pixels.size, str(place))
            x = np.empty((n, *pixels.shape), np.uint8)
        height, width, channels = pixels.shape
        if (height, width) != x.shape[1:3]:
            raise DatasetError(
                f"{place}: {str(name)!r} has {width} x {height} pixels, but {str(first)!r} has {x.shape[2]} x "
                f"{x.shape[1]}; set data.resize to the edge that all images should be brought to, for example 32"
            )
        if channels > x.shape[3]:
            require_room(n * pixels.size, str(place))
            x = np.repeat(x, channels, axis=3)  # the grey images so far; happens once
        x[listing.rows[name]] = pixels
        missing.discard(name)
    if missing:
        raise DatasetError(
            f"{place}: {str(min(missing))!r} was there a moment ago and is gone; run again when nothing changes there"
        )
    x.setflags(write=False)
    y = np.array(listing.labels, dtype=np.int64)
    files = tuple(map(str, listing.rows))
    return Dataset(place.name or str(place), x, y, listing.classes, listing.test_start, listing.val_start, files)


def _decoded(place: Path, names: Set[PurePosixPath], edge: int | None) -> Iterator[tuple[PurePosixPath, np.ndarray]]:
    with warnings.catch_warnings():
        # Damaged metadata beside sound pixels make Pillow warn; images of more than 89 million pixels must not pass.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for member in walk(place):
            if member.read is not None and member.path in names:
                yield member.path, _decode(member.read(), f"{place}: {str(member.path)!r}", edge)


def _decode(content: bytes, where: str, edge: int | None) -> np.ndarray:
    """Decode one image to (H, W, 1) or (H, W, 3) uint8."""
    unreadable = dataset_errors(f"{where} is not a readable image", "it is damaged or no image, replace or remove it")
    with unreadable, Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        _check(image, content, where)
        turned = ImageOps.exif_transpose(image)
        plain = turned.convert("L" if turned.mode in _GREY else "RGB")
    pixels = np.asarray(plain if edge is None else resize_image(plain, edge))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _check(image: Image.Image, content: bytes, where: str) -> None:
    """Refuse what has no faithful form in 8 bits and at most three channels."""
    if getattr(image, "n_frames", 1) > 1:
        raise DatasetError(f"{where} has several frames; save the one that is meant")
    png_depth = content[_PNG_DEPTH] if image.format == "PNG" else 8
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    if image.mode in _DEEP or png_depth > 8 or max(bits) > 8:
        raise DatasetError(f"{where} has 16 or more bits a sample; convert the images to 8 bits first")
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        raise DatasetError(f"{where} has transparent pixels; put the images on a background first, or save as RGB")
