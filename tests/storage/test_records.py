"""Checkpoints: whose they are, what is committed, and what damage looks like."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from advntk_dist.errors import StoreError, StoreMismatchError
from advntk_dist.storage import Records, guarded_group
from advntk_dist.storage.records import read_group, read_seal

IDENTITY: dict[str, Any] = {"network": "mlp-3", "radius": 0.2, "times": [0.1, 1.0], "seed": 0, "path": None}


def _chunks(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "zarr.json")


def test_group_is_made_and_opened_again(tmp_path: Path) -> None:
    made = guarded_group(tmp_path / "a.zarr", IDENTITY)
    Records(made, "table", 2, (3,)).write(0, np.ones((1, 3)))
    opened = guarded_group(tmp_path / "a.zarr", IDENTITY)
    values = Records(opened, "table", 2, (3,)).read(0)
    assert values is not None
    np.testing.assert_array_equal(values, np.ones((1, 3)))
    assert zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["identity"] == IDENTITY


def test_tuples_are_the_lists_that_json_makes_of_them(tmp_path: Path) -> None:
    identity = {"times": (0.1, 1.0), "nested": {"shape": (2, 3)}}
    guarded_group(tmp_path / "a.zarr", identity)
    guarded_group(tmp_path / "a.zarr", identity)


@pytest.mark.parametrize(
    ("field", "value"),
    [("network", "cnn-3"), ("radius", 0.1), ("times", [0.1]), ("seed", 1), ("path", "/x"), ("extra", 5)],
)
def test_other_identity_names_the_field(tmp_path: Path, field: str, value: object) -> None:
    guarded_group(tmp_path / "a.zarr", IDENTITY)
    with pytest.raises(StoreMismatchError, match=field) as caught:
        guarded_group(tmp_path / "a.zarr", {**IDENTITY, field: value})
    assert caught.value.field == field
    assert caught.value.exit_code == 3
    assert repr(value) in str(caught.value)


def test_something_else_at_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no checkpoint")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    zarr.create_group(tmp_path / "other.zarr", zarr_format=3)
    for name in ("file", "folder", "other.zarr"):
        with pytest.raises(StoreError, match=f"{name}: not a checkpoint") as caught:
            guarded_group(tmp_path / name, IDENTITY)
        assert caught.value.exit_code == 3
    assert (tmp_path / "folder" / "notes.txt").read_text() == "mine"


def test_death_while_a_group_is_made_is_no_obstacle(tmp_path: Path) -> None:
    # The folder is there, the metadata was still in its temporary file.
    complete = tmp_path / "a.zarr"
    guarded_group(complete, IDENTITY)
    (complete / "zarr.json").rename(complete / "zarr.0123456789abcdef.partial")
    Records(guarded_group(complete, IDENTITY), "table", 1, (1,)).write(0, np.ones((1, 1)))
    (tmp_path / "empty.zarr").mkdir()
    guarded_group(tmp_path / "empty.zarr", IDENTITY)


def test_death_while_a_table_is_made_is_no_obstacle(tmp_path: Path) -> None:
    group = guarded_group(tmp_path / "a.zarr", IDENTITY)
    (tmp_path / "a.zarr" / "table").mkdir()
    (tmp_path / "a.zarr" / "table" / "zarr.0123456789abcdef.partial").write_text('{"zarr')
    table = Records(group, "table", 1, (1,))
    assert table.read(0) is None
    table.write(0, np.ones((1, 1)))
    assert table.read(0) is not None


@pytest.mark.parametrize(("rows", "span"), [(1, 1), (7, 1), (7, 3), (6, 3), (5, 50)])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_rows_are_committed_chunk_by_chunk(tmp_path: Path, rows: int, span: int, shape: tuple[int, ...]) -> None:
    group = guarded_group(tmp_path / "a.zarr", IDENTITY)
    table = Records(group, "table", rows, shape, span=span)
    values = np.random.default_rng(0).standard_normal((rows, *shape))
    starts = list(range(0, rows, span))
    for k, start in enumerate(reversed(starts)):
        assert table.read_all() is None
        assert table.read(start) is None
        table.write(start, values[start : start + span])
        assert len(_chunks(tmp_path)) == 2 * (k + 1), "the rows and their commit"
    again = Records(group, "table", rows, shape, span=span)
    everything = again.read_all()
    assert everything is not None
    np.testing.assert_array_equal(everything, values)
    for start in starts:
        part = again.read(start)
        assert part is not None
        np.testing.assert_array_equal(part, values[start : start + span])


def test_zeros_are_written_and_told_from_absence(tmp_path: Path) -> None:
    table = Records(guarded_group(tmp_path / "a.zarr", IDENTITY), "table", 2, (3,))
    table.write(1, np.zeros((1, 3)))
    assert table.read(0) is None
    values = table.read(1)
    assert values is not None
    np.testing.assert_array_equal(values, 0.0)


def test_rows_of_no_numbers(tmp_path: Path) -> None:
    assert Records(guarded_group(tmp_path / "a.zarr", IDENTITY), "table", 2, (0,)).rows == 2


@pytest.mark.parametrize(
    ("start", "values"),
    [
        (1, np.ones((3, 2))),
        (0, np.ones((2, 2))),
        (0, np.ones((4, 2))),
        (6, np.ones((3, 2))),
        (0, np.full((3, 2), np.nan)),
        (0, np.full((3, 2), np.inf)),
    ],
    ids=["off the grid", "too few", "too many", "past the end", "nan", "inf"],
)
def test_only_whole_finite_chunks_are_written(tmp_path: Path, start: int, values: Any) -> None:
    table = Records(guarded_group(tmp_path / "a.zarr", IDENTITY), "table", 7, (2,), span=3)
    with pytest.raises(ValueError, match="not one finite chunk"):
        table.write(start, values)
    assert _chunks(tmp_path) == []


@pytest.mark.parametrize(("rows", "shape", "span"), [(8, (2,), 3), (7, (3,), 3), (7, (2,), 1)])
def test_tables_of_another_shape_are_refused(tmp_path: Path, rows: int, shape: tuple[int, ...], span: int) -> None:
    group = guarded_group(tmp_path / "a.zarr", IDENTITY)
    Records(group, "table", 7, (2,), span=3)
    with pytest.raises(StoreMismatchError, match="differs"):
        Records(group, "table", rows, shape, span=span)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_flip, _truncate, _empty, Path.unlink])
@pytest.mark.parametrize("array", ["table", "commits/table"])
def test_a_damaged_record_is_not_committed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], array: str
) -> None:
    table = Records(guarded_group(tmp_path / "a.zarr", IDENTITY), "table", 4, (50,), span=2)
    table.write(0, np.ones((2, 50)))
    table.write(2, np.ones((2, 50)))
    damage(_chunks(tmp_path / "a.zarr" / array)[1])
    assert table.read(0) is not None
    assert table.read(2) is None
    assert table.read_all() is None
    assert len(caplog.messages) == (damage is not Path.unlink or array == "table"), "said once"
    table.write(2, np.ones((2, 50)))
    assert table.read_all() is not None


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", "\0"])
@pytest.mark.parametrize("file", ["zarr.json", "table/zarr.json", "commits/table/zarr.json"])
def test_a_damaged_description_is_written_anew(tmp_path: Path, text: str, file: str) -> None:
    values = np.arange(2.0)[:, None]
    Records(guarded_group(tmp_path / "a.zarr", IDENTITY), "table", 2, (1,), span=2).write(0, values)
    before = (tmp_path / "a.zarr" / file).read_bytes()
    (tmp_path / "a.zarr" / file).write_text(text)
    found = Records(guarded_group(tmp_path / "a.zarr", IDENTITY), "table", 2, (1,), span=2).read_all()
    assert found is not None
    np.testing.assert_array_equal(found, values)
    assert (tmp_path / "a.zarr" / file).read_bytes() == before


def test_any_bit_of_any_file(tmp_path: Path) -> None:
    """The rows are right or not committed, whatever bit is flipped, and can be written and read again."""
    values = np.random.default_rng(0).standard_normal((2, 3))

    def opened(folder: Path) -> Records:
        return Records(guarded_group(folder, IDENTITY), "table", 2, (3,))

    table = opened(tmp_path / "whole")
    table.write(0, values[:1])
    table.write(1, values[1:])
    random = np.random.default_rng(1)
    lost = 0
    for path in sorted(p for p in (tmp_path / "whole").rglob("*") if p.is_file()):
        whole = path.read_bytes()
        for bit in map(int, random.choice(8 * len(whole), 12, replace=False)):
            path.write_bytes(_flipped(whole, bit))
            again = opened(tmp_path / "whole")
            for row in range(2):
                found = again.read(row)
                assert found is None or np.array_equal(found[0], values[row]), (path, bit)
                if found is None:
                    lost += 1
                    again.write(row, values[row : row + 1])
            assert opened(tmp_path / "whole").read_all() is not None, (path, bit)
            path.write_bytes(whole)
    assert lost >= 4 * 12, "chunks and commits have checksums"


def _flipped(content: bytes, bit: int) -> bytes:
    data = bytearray(content)
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


@pytest.mark.parametrize("exchange", ["rows", "tables", "groups"])
def test_exchanged_records_are_not_committed(tmp_path: Path, exchange: str) -> None:
    """A record that lies, with its commit, in the place of another one."""

    def table(identity: int, name: str) -> Records:
        return Records(guarded_group(tmp_path / f"{identity}.zarr", {"identity": identity}), name, 2, (3,))

    for identity in (0, 1):
        for name in ("a", "b"):
            for row in range(2):
                table(identity, name).write(row, np.full((1, 3), 1.0 + identity + row))
    places = {"rows": ("0.zarr", "a", 1), "tables": ("0.zarr", "b", 0), "groups": ("1.zarr", "a", 0)}
    group, name, row = places[exchange]
    for array, chunk in ((name, f"c/{row}/0"), (f"commits/{name}", f"c/{row}")):
        here = array.replace(name, "a"), chunk.replace(f"c/{row}", "c/0")
        shutil.copy(tmp_path / group / array / chunk, tmp_path.joinpath("0.zarr", *here))
    assert table(0, "a").read(0) is None
    assert table(0, "a").read(1) is not None


def test_records_of_other_coefficients_are_not_committed(tmp_path: Path) -> None:
    group = guarded_group(tmp_path / "a.zarr", IDENTITY)
    source = Records(group, "coefficients", 1, (3,))
    assert source.seal(0) == read_seal(group, "coefficients", 1, 0) == -1
    source.write(0, np.ones((1, 3)))
    of = source.seal(0)
    assert of == read_seal(group, "coefficients", 1, 0)
    Records(group, "outcomes", 1, (2,), of=of).write(0, np.ones((1, 2)))
    source.write(0, np.full((1, 3), 2.0))
    assert source.seal(0) != of
    assert Records(group, "outcomes", 1, (2,), of=source.seal(0)).read(0) is None
    source.write(0, np.ones((1, 3)))
    assert Records(group, "outcomes", 1, (2,), of=source.seal(0)).read(0) is not None


def test_nothing_is_written_to_what_is_opened_to_be_read(tmp_path: Path) -> None:
    guarded_group(tmp_path / "a.zarr", IDENTITY)
    group, identity = read_group(tmp_path / "a.zarr")
    assert identity == IDENTITY
    assert Records(group, "table", 2, (3,)).read_all() is None
    assert [p.name for p in (tmp_path / "a.zarr").iterdir()] == ["zarr.json"]


def test_a_damaged_group_of_commits_is_described_anew(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "group.zarr", zarr_format=3)
    Records(group, "first", 2, (3,)).write(0, np.ones((1, 3)))
    (tmp_path / "group.zarr" / "commits" / "zarr.json").write_bytes(b'{\n  "attributes": \xa2')
    opened = zarr.open_group(tmp_path / "group.zarr", mode="r+")
    Records(opened, "second", 2, (3,)).write(1, np.full((1, 3), 2.0))
    found = Records(opened, "second", 2, (3,)).read(1)
    assert found is not None
    assert (found == 2).all()
    kept = Records(opened, "first", 2, (3,)).read(0)
    assert kept is not None
    assert (kept == 1).all()
