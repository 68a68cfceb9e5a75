"""Classes kept and images resized, and what that does to the identity of a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from advntk_dist.config import RunConfig, difference, load_config, parse_config
from advntk_dist.data import Dataset, load_dataset
from advntk_dist.data.select import keep_classes, resize
from advntk_dist.errors import DatasetError
from advntk_dist.pipeline.context import Problem
from advntk_dist.pipeline.directory import digest


def make(shape: tuple[int, int, int], n: int = 12, test_start: int | None = 8) -> Dataset:
    x = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
    return Dataset("made", x, np.arange(n, dtype=np.int64) % 4, ("a", "b", "c", "d"), test_start)


def test_a_subset_keeps_rows_in_order_and_numbers_labels_anew() -> None:
    data = make((3, 3, 1))
    choices: tuple[list[str | int], ...] = (["d", "b"], [1, 3], ["b", 3])
    for wanted in choices:
        kept = keep_classes(data, wanted)
        rows = [1, 3, 5, 7, 9, 11]
        np.testing.assert_array_equal(kept.x, data.x[rows])
        assert kept.y.tolist() == [0, 1, 0, 1, 0, 1]
        assert (kept.classes, kept.test_start) == (("b", "d"), 4)


def test_each_part_keeps_its_own_rows() -> None:
    kept = keep_classes(replace(make((3, 3, 1)), val_start=4), ["a", "c"])
    assert {part: len(rows) for part, rows in kept.parts.items()} == {"train": 2, "val": 2, "test": 2}


def test_a_text_that_is_a_class_name_is_the_name() -> None:
    digits = load_dataset("digits", class_subset=["3", 7])
    assert digits.classes == ("3", "7")
    whole = load_dataset("digits")
    np.testing.assert_array_equal(digits.x, whole.x[np.isin(whole.y, [3, 7])])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (["a"], "at least two classes"),
        (["a", 0], "none of them twice"),
        (["a", "z"], "no class 'z'"),
        (["a", 4], "numbers 0..3"),
        (["a", -1], "no class -1"),
        (["a", True], "no class True"),
        (["a", "d"], "no image of class 'd'"),
        (["a", "b"], "no test image"),
        (["c", "e"], "no training image"),
    ],
)
def test_subsets_that_cannot_be(wanted: list[str | int], words: str) -> None:
    x = np.zeros((6, 2, 2, 1), np.uint8)
    names = ("a", "b", "c", "d") if wanted != ["c", "e"] else ("a", "b", "c", "d", "e")
    y = np.array([0, 1, 0, 1, 2, 2 if len(names) == 4 else 4])
    with pytest.raises(DatasetError) as caught:
        keep_classes(Dataset("made", x, y, names, 4), wanted)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_reduction_by_two_is_close_to_block_means_and_channels_stay_apart(channels: int) -> None:
    ramp = np.linspace(0, 255, 16).astype(np.uint8)
    x = np.stack([np.outer(np.ones(16), ramp), np.outer(ramp, np.ones(16))])[..., None].repeat(channels, -1)
    x = (x // (1 + np.arange(channels))).astype(np.uint8)
    data = Dataset("made", x, np.array([0, 1]), ("a", "b"))
    small = resize(data, 8)
    means = x.reshape(2, 8, 2, 8, 2, channels).mean((2, 4))
    inner = (slice(None), slice(1, 7), slice(1, 7))
    np.testing.assert_allclose(small.x[inner], means[inner], atol=1.5)


def test_fine_patterns_do_not_alias() -> None:
    stripes = np.zeros((1, 64, 64, 1), np.uint8)
    stripes[:, :, ::2] = 255
    small = resize(Dataset("made", stripes, np.zeros(1, np.int64), ("a",)), 9)
    # Taking every seventh pixel would give stripes of 0 and 255.
    assert abs(small.x.astype(int) - 127).max() <= 12


def test_the_middle_square_is_kept_and_values_stay_in_range() -> None:
    x = np.full((2, 10, 30, 3), 9, np.uint8)
    x[:, :, 10:20] = 200
    small = resize(Dataset("made", x, np.array([0, 0]), ("a",)), 5)
    assert (small.x == 200).all()
    larger = resize(make((4, 4, 3)), 9)
    assert larger.image_shape == (9, 9, 3)
    assert larger.test_start == 8
    assert larger.x.min() >= make((4, 4, 3)).x.min()
    same = make((4, 4, 3))
    assert resize(same, 4) is same


def test_loading_resizes_after_the_subset() -> None:
    data = load_dataset("digits", resize=4, class_subset=[0, 1])
    assert data.x.shape[1:] == (4, 4, 1)
    assert data.fingerprint == resize(load_dataset("digits", class_subset=[0, 1]), 4).fingerprint


@pytest.mark.parametrize(
    ("override", "default"),
    [
        ("data.resize=4", None),
        ("data.class_subset=[0, 1]", None),
        ('data.class_subset=["0", "1"]', None),
        ("data.duplicates=drop", "warn"),
    ],
)
def test_keys_that_are_given_belong_to_the_identity_and_round_trip(override: str, default: str | None) -> None:
    plain, other = load_config("digits"), load_config("digits", [override])
    assert digest(other) != digest(plain)
    found = difference(other, plain)
    assert found is not None
    assert (found[0], found[1]) == (override.split("=")[0], default)
    assert parse_config(other.to_toml(), where="resolved") == other


def test_a_run_works_on_what_the_keys_leave() -> None:
    config = RunConfig.model_validate(
        {"data": {"resize": 4, "class_subset": [2, 5], "n_train": 20, "n_val": 5, "n_test": 5}, "evaluation": {}}
    )
    problem = Problem(config)
    assert problem.train.x.shape == (20, 4, 4, 1)
    assert problem.targets.shape == (20, 2)
