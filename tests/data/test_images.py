"""Class folders of real image files, on disk and in archives, whole and damaged."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from advntk_dist.config import load_config
from advntk_dist.data import Dataset, load_dataset
from advntk_dist.data.select import resize
from advntk_dist.pipeline.context import Problem

from . import member, png, refused, write_files, write_tar, write_zip

DRAW = np.random.default_rng(0)


def pixels(channels: int = 3, height: int = 6, width: int = 5) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return DRAW.integers(0, 256, shape, dtype=np.uint8)


def encode(array: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(stream, kind, **options)
    return stream.getvalue()


def written(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """The same files in a folder, a .tar and a .zip."""
    return [
        write_files(folder / "f", files),
        write_tar(folder / "a.tar", files),
        write_zip(folder / "a.zip", files),
    ]


SET = {f"{name}/{k}.png": pixels() for name in ("dog", "cat") for k in (2, 1, 10)}
FILES = {name: encode(array) for name, array in SET.items()}


def check_rows(data: Dataset) -> None:
    assert (data.classes, data.test_start) == (("cat", "dog"), None)
    assert data.y.tolist() == [0, 0, 0, 1, 1, 1]
    order = [f"{name}/{k}.png" for name in ("cat", "dog") for k in (1, 10, 2)]
    np.testing.assert_array_equal(data.x, np.stack([SET[name] for name in order]))


def test_folders_and_archives_give_the_same(tmp_path: Path) -> None:
    wrapped = {f"./pets/{name}": content for name, content in FILES.items()}
    backwards = dict(reversed(FILES.items()))
    clutter = {"__MACOSX/cat/._1.png": b"x", "cat/.DS_Store": b"x", "dog/Thumbs.db": b"x", "README.md": b"x"}
    places = [
        write_files(tmp_path / "plain", FILES | clutter),
        write_files(tmp_path / "wrapped", wrapped),
        write_tar(tmp_path / "a.tar", wrapped),
        write_tar(tmp_path / "b.tar.gz", backwards | clutter),
        write_zip(tmp_path / "c.zip", backwards | clutter),
    ]
    for place in places:
        check_rows(load_dataset("images", place))
        check_rows(load_dataset(str(place)))
    assert len({load_dataset("images", place).fingerprint for place in places}) == 1


def test_train_and_test_folders_become_the_publishers_parts(tmp_path: Path) -> None:
    files = {f"train/{name}": content for name, content in FILES.items()}
    files |= {"test/cat/9.png": FILES["dog/1.png"], "train/labels.txt": b"x"}
    for place in (
        write_files(tmp_path / "f", files),
        write_tar(tmp_path / "t.tar", {f"x/{k}": v for k, v in files.items()}),
    ):
        data = load_dataset("images", place)
        assert (data.test_start, data.classes, data.y.tolist()) == (6, ("cat", "dog"), [0, 0, 0, 1, 1, 1, 0])
        np.testing.assert_array_equal(data.x[6], SET["dog/1.png"])


def test_train_alone_is_one_part_and_train_beside_others_a_class(tmp_path: Path) -> None:
    check_rows(load_dataset("images", write_files(tmp_path / "a", {f"train/{name}": c for name, c in FILES.items()})))
    vehicles = {name.replace("cat", "bus").replace("dog", "train"): content for name, content in FILES.items()}
    assert load_dataset("images", write_files(tmp_path / "b", vehicles)).classes == ("bus", "train")


def numbered(root: Path, *folders: str) -> Path:
    """Three grey images a folder, with shades 0, 1, 2, ... in the order of the folders."""
    return write_files(
        root, {f"{folder}/{i}.png": png(3 * k + i) for k, folder in enumerate(folders) for i in range(3)}
    )


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "dev"])
def test_folders_of_three_parts_are_the_parts_of_a_run(tmp_path: Path, validation: str) -> None:
    folders = [f"{part}/{name}" for part in ("train", validation, "test") for name in "ab"]
    data = load_dataset(str(numbered(tmp_path / "f", *folders)))
    assert data.x[:, 0, 0, 0].tolist() == list(range(18))
    assert data.y.tolist() == [0, 0, 0, 1, 1, 1] * 3
    assert {part: len(rows) for part, rows in data.parts.items()} == {"train": 6, "val": 6, "test": 6}
    sizes = ["data.n_train=6", "data.n_val=6", "data.n_test=6"]
    problem = Problem(load_config("digits", [f"data.name={tmp_path / 'f'}", *sizes]))
    assert set(problem.val.raw[:, 0, 0, 0].tolist()) == set(range(6, 12))
    assert set(problem.test.raw[:, 0, 0, 0].tolist()) == set(range(12, 18))


def test_two_parts_are_mended_as_is_said(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "f", "train/a", "train/b", "val/a", "val/b")
    assert "rename val to test, of which the results are" in refused("images", folder)
    (folder / "val").rename(folder / "test")
    assert load_dataset("images", folder).test_start == 6


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train/1.png", "test/2.png"], "test, train are parts of a dataset, not classes"),
        (["train/1.png"], "train are parts"),
        (["train/a/1.png", "val/a/2.png"], "train, val are parts"),
        (["train/a/1.png", "val/a/2.png"], "rename val to test, of which the results are"),
        (["train/a/1.png", "test/a/1.png", "val/a/2.png", "dev/a/1.png"], "keep one of val and dev"),
        (["training/a/1.png", "testing/a/1.png"], "name them train, val and test"),
        (["train/a/1.png", "test/a/1.png", "val/b/1.png"], "class 'b' has val images but no training images"),
        (["a/1.png", "1.png"], "'1.png' does not lie directly in a class folder"),
        (["a/b/1.png", "b/1.png"], "'a/b/1.png' does not lie directly in a class folder"),
        (["train/a/1.png", "test/b/1.png"], "class 'b' has test images but no training images"),
        (["a/1.png", "a/notes.txt", "b/1.png"], "'a/notes.txt' in a class folder is no image by its name"),
        (["1.png", "2.png"], "does not lie directly in a class folder"),
        (["a/1.txt"], "holds no image"),
    ],
)
def test_other_trees_are_refused(tmp_path: Path, names: list[str], words: str) -> None:
    files = dict.fromkeys(names, FILES["cat/1.png"])
    for place in written(tmp_path, files):
        assert f"{place}: " in (message := refused("images", place))
        assert words in message


@pytest.mark.parametrize("name", ["bird", "test/cat", "test"])
def test_empty_folders_are_named(tmp_path: Path, name: str) -> None:
    files = {name: content for name, content in FILES.items()}
    if name != "bird":
        files = {f"train/{key}": content for key, content in FILES.items()}
    folder = write_files(tmp_path / "f", files)
    (folder / name).mkdir(parents=True)
    assert f"folder {name.split('/')[0]!r} holds no image" in refused("images", folder)
    archive = tmp_path / "f.tar"
    with tarfile.open(archive, "w") as writer:
        writer.add(folder, "f")
    assert f"folder {'f/' + name.split('/')[0]!r} holds no image" in refused("images", archive)


def test_mixed_sizes_name_the_key_that_mends_it(tmp_path: Path) -> None:
    files = FILES | {"dog/3.png": encode(pixels(3, 4, 9))}
    for place in (write_files(tmp_path / "f", files), write_tar(tmp_path / "a.tar", files)):
        message = refused("images", place)
        assert "has 9 x 4 pixels, but" in message or "has 5 x 6 pixels, but" in message
        assert "data.resize" in message
        data = load_dataset("images", place, resize=4)
        assert data.image_shape == (4, 4, 3)
    plain = load_dataset("images", write_files(tmp_path / "g", FILES))
    assert load_dataset("images", tmp_path / "g", resize=4).fingerprint == resize(plain, 4).fingerprint


@pytest.mark.parametrize("kind", ["BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_lossless_formats_give_the_same_pixels(tmp_path: Path, kind: str) -> None:
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    array = pixels()
    if kind == "GIF":
        array = np.asarray(Image.fromarray(array).quantize(64).convert("RGB"))
    files = {"a/1.png": encode(array), f"b/1.{kind.lower()}": encode(array, kind, **options)}
    data = load_dataset("images", write_files(tmp_path / "f", files))
    np.testing.assert_array_equal(data.x[0], data.x[1])


def test_jpeg_is_read_and_turned_as_the_camera_says(tmp_path: Path) -> None:
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:, 8:] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # the image must be turned by 90 degrees clockwise to be seen upright
    lying = encode(np.rot90(upright), "JPEG", quality=95, exif=exif)
    data = load_dataset("images", write_files(tmp_path / "f", {"a/1.jpg": lying, "b/1.JPEG": encode(upright, "JPEG")}))
    assert data.x.shape == (2, 8, 16, 3)
    assert abs(data.x.astype(int) - upright).max() <= 12


def test_grey_images_have_one_channel_unless_others_have_colours(tmp_path: Path) -> None:
    grey, bits, colour = pixels(1), pixels(1) > 127, pixels()
    files = {"a/1.png": encode(grey), "b/1.png": encode(bits), "b/2.png": encode(grey, mode="LA")}
    data = load_dataset("images", write_files(tmp_path / "grey", files))
    np.testing.assert_array_equal(data.x[..., 0], np.stack([grey, bits * 255, grey]))
    for k, order in enumerate([{"c/1.png": colour}, {"0/1.png": colour}]):
        mixed = load_dataset(
            "images", write_files(tmp_path / f"mixed{k}", files | {n: encode(v) for n, v in order.items()})
        )
        row = 0 if k else 3
        np.testing.assert_array_equal(mixed.x[row], colour)
        for other, expected in zip(np.delete(mixed.x, row, 0), (grey, bits * 255, grey), strict=True):
            np.testing.assert_array_equal(other, np.repeat(expected[..., None], 3, 2))


def test_palettes_and_opaque_alpha_become_colours(tmp_path: Path) -> None:
    palette = Image.fromarray(pixels()).quantize(16)
    opaque = np.dstack([pixels(), np.full((6, 5), 255, np.uint8)])
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    data = load_dataset(
        "images", write_files(tmp_path / "f", {"a/1.png": stream.getvalue(), "b/1.png": encode(opaque)})
    )
    np.testing.assert_array_equal(data.x[0], np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(data.x[1], opaque[..., :3])


def png16(channels: int) -> bytes:
    """A 16-bit PNG, chunk by chunk: 2 x 2 pixels of one or three channels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = 2 * (b"\0" + bytes(range(2 * 2 * channels)))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 0 if channels == 1 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def animation() -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(pixels()) for _ in range(2)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def bomb() -> bytes:
    whole = bytearray(encode(pixels()))
    whole[16:24] = struct.pack(">II", 60_000, 60_000)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    return bytes(whole)


GOOD = encode(DRAW.integers(0, 256, (40, 40, 3), dtype=np.uint8))
JPEG = encode(DRAW.integers(0, 256, (40, 40, 3), dtype=np.uint8), "JPEG")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a readable image"),
        (b"hello", "is not a readable image"),
        (b"<html></html>" * 50, "is not a readable image"),
        (GOOD[:40], "is not a readable image"),
        (GOOD[: len(GOOD) // 2], "is not a readable image"),
        (GOOD[:100] + bytes(100) + GOOD[200:], "is not a readable image"),
        (JPEG[: len(JPEG) // 2], "is not a readable image"),
        (JPEG[:30], "is not a readable image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "is not a readable image"),
        (bomb(), "DecompressionBomb"),
        (png16(1), "16 or more bits a sample"),
        (png16(3), "16 or more bits a sample"),
        (encode(pixels(1).astype(np.uint16), "TIFF"), "16 or more bits a sample"),
        (encode(pixels(1).astype(np.float32), "TIFF"), "16 or more bits a sample"),
        (encode(pixels(4)), "transparent pixels"),
        (encode(pixels(4), mode="LA"), "transparent pixels"),
        (animation(), "several frames"),
    ],
)
def test_files_that_are_no_plain_images_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    files = FILES | {"dog/3.png": content}
    for place in written(tmp_path, files):
        message = refused("images", place)
        assert words in message
        assert "'dog/3.png'" in message
        assert words in refused("images", place, resize=3)


@pytest.mark.parametrize("name", ["../cat/7.png", "/cat/7.png", "a/../../7.png"])
def test_archives_that_point_outside_themselves_are_refused(tmp_path: Path, name: str) -> None:
    files = FILES | {name: FILES["cat/1.png"]}
    for place in (write_tar(tmp_path / "a.tar", files), write_zip(tmp_path / "a.zip", files)):
        assert "outside the archive" in refused("images", place)


def test_doubles_in_archives_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "b.tar", FILES, more=[(member("cat/1.png", 1), b"x")])
    assert "holds 'cat/1.png' twice" in refused("images", path)


def test_a_tar_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(path) as archive:
        start = archive.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:start])
    with tarfile.open(path) as archive:
        assert len(archive.getmembers()) == 4, "tarfile itself finds nothing wrong"
    assert "without its end mark" in refused("images", path)


def test_missing_and_absent_paths_say_what_to_give(tmp_path: Path) -> None:
    assert "set data.path to a folder, .tar" in refused("images")
    assert "no such file or folder" in refused("images", tmp_path / "absent")
    assert "holds no image" in refused("images", tmp_path)
    text = write_files(tmp_path / "t", {"a.txt": b"x"}) / "a.txt"
    assert "not a readable .tar" in refused("images", text)


def test_real_jpeg_files(shared_dir: Path, tmp_path: Path) -> None:
    """Every 50th image of the archive, in an archive of their own."""
    with (
        tarfile.open(shared_dir / "data" / "cifar10_jpeg" / "test.tar") as whole,
        tarfile.open(tmp_path / "part.tar", "w") as part,
    ):
        files = [member for member in whole if member.isfile()]
        for member in files[::50]:
            part.addfile(member, whole.extractfile(member))
    data = load_dataset(str(tmp_path / "part.tar"), resize=4)
    assert data.x.shape == (200, 4, 4, 3)
    assert data.classes[0] == "airplane"
    assert np.bincount(data.y).tolist() == [20] * 10
