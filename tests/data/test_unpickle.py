"""The restricted unpickler: reads CIFAR's python files, runs nothing, refuses everything else."""

from __future__ import annotations

import collections
import datetime
import os
import pickle
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advntk_dist.data import load_dataset, unpickle
from advntk_dist.data.unpickle import load_pickled_arrays
from advntk_dist.errors import DatasetError

from . import cifar_files, cifar_rows, python2_batch, python3_batch, write_files

HEAD = b"\x80\x02}U\x01a"
"""A pickled dict up to its first value, under the key b"a"."""


class Calls:
    """Pickles as a call of ``function(*args)``."""

    def __init__(self, function: object, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Return the call."""
        return self.call


def refused(content: bytes) -> str:
    """Expect the one-line error and return its message."""
    with pytest.raises(DatasetError) as caught:
        load_pickled_arrays(content, "some/file")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("some/file: ")
    return str(caught.value)


def test_our_python2_files_are_what_numpy_itself_unpickles() -> None:
    rows, labels = cifar_rows(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        real = pickle.loads(python2_batch(rows, labels), encoding="bytes")
    np.testing.assert_array_equal(real[b"data"], rows)
    assert real[b"labels"] == labels.tolist()


def test_reads_python2_files() -> None:
    rows, labels = cifar_rows(4)
    fields = load_pickled_arrays(python2_batch(rows, labels), "f")
    assert list(fields) == ["batch_label", "labels", "data", "filenames"]
    assert fields["batch_label"] == b"training batch 1 of 5"
    assert fields["labels"] == labels.tolist()
    np.testing.assert_array_equal(fields["data"], rows)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["u1", "<i4", ">i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_reads_python3_files(protocol: int, dtype: str, order: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype, order=order)  # type: ignore[call-overload]
    for core in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        content = pickle.dumps({b"data": array, "labels": [1, 2]}, protocol)
        if protocol < 4:
            content = content.replace(b"numpy._core.multiarray", core)
        fields = load_pickled_arrays(content, "f")
        data = fields["data"]
        assert isinstance(data, np.ndarray)
        assert data.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(data, array)
        assert fields["labels"] == [1, 2]


def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    rows, labels = cifar_rows(3)
    harmful = {b"data": rows, b"labels": labels.tolist(), b"x": Calls(os.system, f"touch {marker}")}
    for protocol in range(5):
        files = cifar_files("py") | {"data_batch_3": pickle.dumps(harmful, protocol)}
        folder = write_files(tmp_path / "f", files)
        with pytest.raises(DatasetError, match=rf"{folder / 'data_batch_3'}.*'(posix|nt)\.system'.*nothing was run"):
            load_dataset("cifar10", folder)
    assert not marker.exists()
    pickle.loads(pickle.dumps(harmful))
    assert marker.exists(), "the pickle would have run its command, so the refusal above means something"


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        (Calls(subprocess.call, "true"), "commands.call"),
        (Calls(eval, "1"), "eval"),
        (Calls(getattr, 1, "real"), "getattr"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (datetime.date(2020, 1, 1), "datetime.date"),
        (np.float64(1), "scalar"),
        (np.load, "numpy.load"),
        (np.ndarray.__new__, "getattr"),
    ],
)
def test_any_other_global_is_refused_by_name(value: object, asked: str) -> None:
    assert asked in refused(pickle.dumps({b"data": value}, 2))


@pytest.mark.parametrize(
    "name",
    [
        b"numpy\nndarray.__class__",
        b"numpy.core\nmultiarray._reconstruct",
        b"numpy\ncore",
        b"_codecs\ndecode",
    ],
)
def test_dotted_and_neighbouring_names_are_refused(name: bytes) -> None:
    assert "nothing was run" in refused(HEAD + b"c" + name + b"\ns.")


@pytest.mark.parametrize(
    "name", [b"numpy.core.multiarray\n_reconstruct", b"numpy\nndarray", b"numpy\ndtype", b"_codecs\nencode"]
)
@pytest.mark.parametrize("state", [b"}U\x01xK\x01s", b"N}U\x0c__setstate__K\x01s\x86", b"}U\x09__class__K\x01s"])
def test_a_pickle_cannot_change_what_stands_in_for_a_global(name: bytes, state: bytes) -> None:
    assert "cannot be given a state" in refused(HEAD + b"c" + name + b"\n" + state + b"bs.")
    for stand_in in unpickle._ADMITTED.values():
        assert not hasattr(stand_in, "x")
        assert not hasattr(stand_in, "__dict__")
    test_reads_python2_files()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps({b"data": np.array([None, 1], dtype=object)}, 2), "'O8' is not a plain integer"),
        (pickle.dumps({b"data": np.zeros(2)}, 2), "'f8' is not a plain integer"),
        (pickle.dumps({b"data": np.zeros(2, "u1,u1")}, 2), "is not a plain integer"),
        (pickle.dumps({b"data": np.ma.zeros(2, "u1")}, 2), "numpy.ma"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({1: 2}), "a int stands where a string belongs"),
        (pickle.dumps({b"a": 1}) + b"more", "4 bytes follow"),
        (b"", "pickle exhausted"),
        (HEAD + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87Rs.", "'array'"),
        (HEAD + b"cnumpy.core.multiarray\n_reconstruct\nNK\x00\x85U\x01b\x87Rs.", "unknown way"),
        (HEAD + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|]NNtbs.", "more than a byte order"),
        (HEAD + b"cnumpy\ndtype\nK\x01\x85Rs.", "stands where a string belongs"),
        (HEAD + b"K\x01r\x00\x00\x10\x00s.", "memo number 1048576"),
        (HEAD + b"c_codecs\nencode\nX\x01\x00\x00\x00aU\x05rot13\x86Rs.", "unknown way"),
        (b"\x80\x02P1\n.", "persistent"),
        (b"\x80\x02\x82\x01.", "extension"),
    ],
)  # fmt: skip
def test_other_content_is_refused(content: bytes, words: str) -> None:
    assert words in refused(content)


def test_array_bytes_must_fit_the_shape() -> None:
    rows, labels = cifar_rows(3)
    assert "reshape" in refused(python2_batch(rows, labels, raw=rows.tobytes()[:-1]))
    negative = python2_batch(rows, labels).replace(b"J\x03\x00\x00\x00J", b"J\xff\xff\xff\xffJ")
    assert "impossible shape" in refused(negative)


BATCH = python3_batch(*cifar_rows(2))


@given(st.integers(0, len(BATCH) - 1))
@settings(deadline=None)
def test_every_cut_is_refused(size: int) -> None:
    refused(BATCH[:size])


OLD_BATCH = python2_batch(*cifar_rows(1))


@given(st.integers(0, 300), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_never_escapes_as_another_error(place: int, byte: int) -> None:
    content = OLD_BATCH[:place] + bytes([byte]) + OLD_BATCH[place + 1 :]
    try:
        outcome = type(load_pickled_arrays(content, "f")).__name__
    except DatasetError as error:
        outcome = str(error)
    assert outcome == "dict" or (outcome.startswith("f: ") and "\n" not in outcome)
