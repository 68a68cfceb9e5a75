"""Properties of the seeded split."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advntk_dist.data import Dataset, Split, load_dataset, split
from advntk_dist.errors import ConfigError

PINNED_DIGITS = ([896, 1330, 638, 993], [1714, 1015, 1263], [729, 1580])
PINNED_CIFAR = ([18657, 4785, 41688, 37587], [47717, 35240, 6406], [51034, 59809])


def numbered(n: int, test_start: int | None, val_start: int | None = None) -> Dataset:
    """n one-pixel images."""
    return Dataset(
        "numbered", np.zeros((n, 1, 1, 1), np.uint8), np.zeros(n, np.int64), ("only",), test_start, val_start
    )


def same(a: Split, b: Split) -> bool:
    """Whether two splits hold the same rows in the same order."""
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Split))


@st.composite
def requests(draw: st.DrawFn) -> tuple[Dataset, dict[str, int]]:
    """A dataset, with a publisher's test set, with its validation set too or with neither, and sizes that it serves."""
    n = draw(st.integers(3, 60))
    test_start = draw(st.none() | st.integers(2, n - 1))
    val_start = None if test_start is None else draw(st.none() | st.integers(1, test_start - 1))
    n_test = draw(st.integers(0, n - 1 if test_start is None else n - test_start))
    left = n - n_test if test_start is None else test_start
    n_val = draw(st.integers(0, left - 1 if val_start is None else left - val_start))
    n_train = draw(st.integers(1, left - n_val if val_start is None else val_start))
    seed = draw(st.integers(0, 2**64))
    sizes = {"n_train": n_train, "n_val": n_val, "n_test": n_test}
    return numbered(n, test_start, val_start), sizes | {"seed": seed}


@given(requests())
@settings(deadline=None)
def test_parts_are_disjoint_of_the_size_asked_for_and_from_the_publishers_parts(
    request_: tuple[Dataset, dict[str, int]],
) -> None:
    data, asked = request_
    parts = split(data, **asked)
    own = data.parts
    for part in ("train", "val", "test"):
        rows = getattr(parts, part)
        assert rows.dtype == np.int64
        assert rows.shape == (asked[f"n_{part}"],)
        assert not rows.flags.writeable
        assert np.isin(rows, next(own[name] for name in (part, "train", "all") if name in own)).all()
    together = np.concatenate([parts.train, parts.val, parts.test])
    assert len(np.unique(together)) == len(together)


@given(requests(), st.data())
@settings(deadline=None)
def test_same_seed_same_rows_and_smaller_training_is_a_prefix(
    request_: tuple[Dataset, dict[str, int]], more: st.DataObject
) -> None:
    data, asked = request_
    whole = split(data, **asked)
    assert same(whole, split(data, **asked))
    fewer = more.draw(st.integers(1, asked["n_train"]))
    part = split(data, **(asked | {"n_train": fewer}))
    assert np.array_equal(part.train, whole.train[:fewer])
    assert np.array_equal(part.val, whole.val)
    assert np.array_equal(part.test, whole.test)


def test_another_seed_gives_other_rows() -> None:
    data = numbered(300, 200)
    a, b = (split(data, n_train=100, n_val=50, n_test=50, seed=seed) for seed in (0, 1))
    for field in dataclasses.fields(Split):
        assert not np.array_equal(getattr(a, field.name), getattr(b, field.name))


@pytest.mark.parametrize("test_start", [None, 200])
def test_every_row_is_drawn_equally_often(test_start: int | None) -> None:
    data = numbered(300, test_start)
    counts = np.zeros(300)
    for seed in range(400):
        parts = split(data, n_train=60, n_val=40, n_test=50, seed=seed)
        counts[parts.train] += 1
    pool = 300 if test_start is None else test_start
    expected = 400 * 60 / pool
    # Six standard deviations of a binomial count, for seeds that never change.
    assert np.abs(counts[:pool] - expected).max() < 6 * np.sqrt(expected)
    assert not counts[pool:].any()


def test_rows_of_a_seed_never_change() -> None:
    """Pins NumPy's stream: a change here would silently give every resumed run other images."""
    parts = split(load_dataset("digits"), n_train=4, n_val=3, n_test=2, seed=0)
    assert (parts.train.tolist(), parts.val.tolist(), parts.test.tolist()) == PINNED_DIGITS
    parts = split(numbered(60_000, 50_000), n_train=4, n_val=3, n_test=2, seed=7)
    assert (parts.train.tolist(), parts.val.tolist(), parts.test.tolist()) == PINNED_CIFAR


@pytest.mark.parametrize(
    ("starts", "change", "words"),
    [
        ((None,), {"n_test": 101}, ["data.n_test = 101", "100 images"]),
        ((None,), {"n_val": 91}, ["data.n_val = 91", "100 images", "beside data.n_test = 10", "90 of them left"]),
        ((None,), {"n_train": 81}, ["data.n_train = 81", "data.n_test = 10 and data.n_val = 10", "80 of them left"]),
        ((80,), {"n_test": 21}, ["data.n_test = 21", "20 test images"]),
        ((80,), {"n_val": 81}, ["data.n_val = 81", "80 training images"]),
        ((80,), {"n_train": 71}, ["data.n_train = 71", "80 training images", "data.n_val = 10", "70 of them left"]),
        ((80,), {"n_train": 0}, ["data.n_train = 0", "at least 1"]),
        ((80,), {"n_val": -1}, ["data.n_val = -1", "at least 0"]),
        ((80,), {"n_test": -1}, ["data.n_test = -1", "at least 0"]),
        ((80,), {"seed": -1}, ["data.seed = -1", "at least 0"]),
        ((80, 60), {"n_test": 21}, ["data.n_test = 21: 'numbered' has 20 test images"]),
        ((80, 60), {"n_val": 21}, ["data.n_val = 21: 'numbered' has 20 validation images"]),
        ((80, 60), {"n_train": 61}, ["data.n_train = 61: 'numbered' has 60 training images"]),
    ],
)
def test_asking_for_too_much_names_the_key_what_was_asked_and_what_is_there(
    starts: tuple[int | None, ...], change: dict[str, int], words: list[str]
) -> None:
    asked = {"n_train": 10, "n_val": 10, "n_test": 10, "seed": 0} | change
    with pytest.raises(ConfigError) as caught:
        split(numbered(100, *starts), **asked)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
