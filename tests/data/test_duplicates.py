"""Equal images: found within and across the parts of a split, named, dropped, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from advntk_dist.config import RunConfig, load_config
from advntk_dist.data import Dataset, load_dataset
from advntk_dist.data.duplicates import SHOWN, Duplicates, drop_duplicates, find_duplicates
from advntk_dist.errors import ConfigError, DatasetError
from advntk_dist.pipeline.context import Problem
from tests.conftest import Command

DRAW = np.random.default_rng(0)
X = DRAW.integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
Y = np.arange(40, dtype=np.int64) % 4
CLASSES = ("a", "b", "c", "d")


def made(order: list[int], labels: list[int] | None = None, **more: Any) -> Dataset:
    """Images X[order], with labels that go with them unless others are given."""
    return Dataset("made", X[order], Y[order] if labels is None else np.array(labels), CLASSES, **more)


def run_of(path: Path, *more: str, sizes: tuple[int, int, int] = (40, 20, 20)) -> RunConfig:
    keys = (f"data.{key}={n}" for key, n in zip(("n_train", "n_val", "n_test"), sizes, strict=True))
    return load_config("digits", [f"data.name={path}", *keys, *more])


def twice(folder: Path) -> Path:
    """Every image twice, as in a set that was put together from two overlapping ones."""
    np.savez(folder / "dup.npz", x=np.concatenate([X, X]), y=np.concatenate([Y, Y]))
    return folder / "dup.npz"


def test_no_image_is_there_twice() -> None:
    found = find_duplicates(data := made(list(range(10))), data.parts)
    assert not found
    assert (str(found), found.leak, found.lines(), found.pairs) == ("", "", (), ())
    assert found.within == {"all": 0}


def test_counts_within_and_across_the_parts_and_the_pairs_in_the_order_of_harm() -> None:
    order = [0, 1, 2, 0, 1, 3, 4, 5, 0, 6, 6, 5]
    labels = [0, 1, 2, 0, 1, 3, 0, 1, 0, 2, 3, 1]
    data = made(order, labels, val_start=5, test_start=8)  # train 0 1 2 0 1; val 3 4 5; test 0 6 6 5
    found = find_duplicates(data, data.parts)
    assert found.images == {"train": 5, "val": 3, "test": 4}
    assert found.within == {"train": 2, "val": 0, "test": 1}
    assert found.across == {"train-val": 0, "train-test": 1, "val-test": 1}
    assert found.contradicting == 2
    assert [str(pair) for pair in found.pairs] == [
        "test 1 = test 2 (rows 9 and 10, classes 'c' and 'd')",
        "train 0 = test 0 (rows 0 and 8)",
        "val 2 = test 3 (rows 7 and 11)",
        "train 0 = train 3 (rows 0 and 3)",
        "train 1 = train 4 (rows 1 and 4)",
    ]
    assert found.leak == "But 1 of 4 test images are also training images."
    for words in ("1 of 4 test images are also training images", "1 of 4 test images are also validation images"):
        assert words in str(found)
    assert "2 of 5 training images equal an earlier one" in str(found)
    assert "2 images equal one of another class" in str(found)


def test_rows_of_a_drawn_split_are_named_by_their_place_in_it() -> None:
    data = made([0, 1, 2, 3, 0, 1])
    found = find_duplicates(data, {"train": np.array([4, 3]), "val": np.array([5]), "test": np.array([2, 1, 0])})
    assert [str(pair) for pair in found.pairs] == [
        "val 0 = test 1 (rows 5 and 1)",
        "train 0 = test 2 (rows 4 and 0)",
    ]
    assert found.across == {"train-val": 0, "train-test": 1, "val-test": 1}
    assert found.images["test"] == 3


def test_a_group_counts_every_image_but_the_first_and_few_pairs_are_named() -> None:
    found = find_duplicates(data := made([7] * 9), data.parts)
    assert found.within == {"all": 8}
    assert len(found.pairs) == SHOWN
    assert str(found).startswith("8 of 9 images equal an earlier one; for example image 0 = image 1, image 0 = image 2")


def test_every_pixel_counts() -> None:
    near = X[:2].copy()
    near[1] = near[0]
    near[1, 3, 3, 0] ^= 1
    found = find_duplicates(data := Dataset("near", near, np.zeros(2, np.int64), ("a",)), data.parts)
    assert not found


def test_results_keep_all_of_it() -> None:
    data = made([0, 1, 0, 2, 2], [0, 1, 0, 2, 3], test_start=2)
    found = find_duplicates(replace(data, dropped=3), data.parts)
    assert Duplicates.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    assert [line.split(":")[0] for line in found.lines()] == ["equal images", "equal images"]
    assert "3 left out" in found.lines()[0]


def test_the_first_copy_stays_and_with_it_the_training_image() -> None:
    data = made([0, 1, 2, 0, 3, 1, 4], [0, 1, 2, 3, 3, 1, 0], test_start=4, files=tuple("abcdefg"))
    kept = drop_duplicates(data)
    np.testing.assert_array_equal(kept.x, X[[0, 1, 2, 3, 4]])
    assert kept.y.tolist() == [0, 1, 2, 3, 0]
    assert (kept.test_start, kept.dropped, kept.files) == (3, 2, ("a", "b", "c", "e", "g"))
    assert not find_duplicates(kept, kept.parts)
    assert drop_duplicates(kept) is kept
    with pytest.raises(DatasetError, match=r'data\.duplicates = "drop": no test image of .made. is left'):
        drop_duplicates(made([0, 1, 0, 1], test_start=2))


def test_images_that_are_equal_once_they_are_resized_are_dropped(tmp_path: Path) -> None:
    x = np.repeat(X[:3], 2, axis=2)[..., 0]
    x = np.concatenate([x, x])
    x[3:, :, 0] ^= 1  # outside of the middle square
    np.savez(tmp_path / "wide.npz", x=x, y=np.array([0, 1, 0] * 2))
    for edge, left in ((None, 6), (4, 3)):
        assert len(load_dataset(str(tmp_path / "wide.npz"), resize=edge, drop_duplicates=True)) == left


def test_a_run_names_its_equal_images(tmp_path: Path) -> None:
    found = Problem(run_of(twice(tmp_path))).duplicates
    assert sum(found.within.values()) + sum(found.across.values()) == 40
    assert found.across["train-test"] > 0
    assert "training images" in found.leak


def test_drop_leaves_one_of_each_before_the_split_is_drawn(tmp_path: Path) -> None:
    path = twice(tmp_path)
    problem = Problem(run_of(path, "data.duplicates=drop", sizes=(20, 10, 10)))
    assert not problem.duplicates
    drawn = np.concatenate([part.raw for part in (problem.train, problem.val, problem.test)])
    assert len(np.unique(drawn.reshape(40, -1), axis=0)) == 40
    assert problem.duplicates.lines() == ('equal images: 40 left out of the data, as data.duplicates = "drop"',)
    with pytest.raises(ConfigError, match=r"data\.n_train = 21: 'dup\.npz' has 40 images \(without 40 equal ones"):
        Problem(run_of(path, "data.duplicates=drop", sizes=(21, 10, 10)))
    raw = load_dataset(str(path))
    assert problem.dataset.fingerprint == replace(raw, x=X, y=Y).fingerprint


def test_refuse_is_exit_2_that_names_them_and_its_remedy_helps(tmp_path: Path, advntk: Command) -> None:
    path = twice(tmp_path)
    words = ["run", "digits", "--out", str(tmp_path / "run"), "--set", f"data.name={path}"]
    words += [w for s in ("data.n_train=40", "data.n_val=20", "data.n_test=20") for w in ("--set", s)]
    code, out, err = advntk(*words, "--set", "data.duplicates=refuse")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "holds equal images" in err
    assert " test images are also training images" in err
    assert " = " in err
    assert not (tmp_path / "run").exists()
    assert 'set data.duplicates to "drop"' in err
    assert Problem(run_of(path, "data.duplicates=drop", sizes=(20, 10, 10)))
    np.savez(tmp_path / "clean.npz", x=X, y=Y)
    assert Problem(run_of(tmp_path / "clean.npz", "data.duplicates=refuse", sizes=(20, 10, 10)))


def test_info_names_equal_images(tmp_path: Path, advntk: Command) -> None:
    path = str(twice(tmp_path))
    _, out, _ = advntk("data", "info", path)
    assert (
        "equal images 40 of 80 images equal an earlier one; for example image 0 = image 40, image 1 = image 41" in out
    )
    _, out, _ = advntk("data", "info", path, "--json")
    found = json.loads(out)["duplicates"]
    assert found["within"] == {"all": 40}
    assert found["pairs"][0]["second"] == {"part": "all", "index": 40, "row": 40, "label": "0", "file": None}
    np.savez(tmp_path / "clean.npz", x=X, y=Y)
    assert "equal images" not in advntk("data", "info", str(tmp_path / "clean.npz"))[1]


def test_pairs_of_folders_have_their_files(tmp_path: Path, advntk: Command) -> None:
    files = {"train/a/1.png": 0, "train/b/1.png": 1, "val/a/1.png": 2, "test/a/1.png": 3, "test/b/\x1b[2J.png": 1}
    for name, k in files.items():
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(X[k, :, :, 0]).save(tmp_path / "f" / name)
    data = load_dataset(str(tmp_path / "f"))
    found = find_duplicates(data, data.parts)
    assert [str(pair) for pair in found.pairs] == [r"train 1 = test 1 (train/b/1.png and test/b/\x1b[2J.png)"]
    assert "\x1b" not in advntk("data", "info", str(tmp_path / "f"))[1]
