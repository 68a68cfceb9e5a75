from __future__ import annotations

import shutil
from typing import Any

import pytest

from advntk_dist.errors import StoreDamagedError
from advntk_dist.gram.layout import mend_layout
from advntk_dist.gram.verify import invalidate, verify_gram


def test_whole_store_is_ok(fill: Any) -> None:
    store = fill(kinds=("ntk", "nngp"))
    report = verify_gram(store)
    assert report.ok
    assert (report.checked, report.missing, report.bytes) == (20, 0, 20 * (8 * 8 * 4 + 4))
    report.raise_if_damaged(store.path)


def test_every_kind_of_damage_is_listed(fill: Any) -> None:
    store = fill()
    flipped = store.chunk_path("ntk", 0, 0)
    flipped.write_bytes(bytes([flipped.read_bytes()[0] ^ 64]) + flipped.read_bytes()[1:])
    cut = store.chunk_path("ntk", 0, 1)
    cut.write_bytes(cut.read_bytes()[:100])
    store.chunk_path("ntk", 0, 2).unlink()
    (store.path / "commits" / "ntk" / "c" / "1" / "1" / "0").write_bytes(b"short")
    store.commits["ntk"].remove(3, 3)
    report = verify_gram(store)
    assert {(d.i, d.j): d.reason for d in report.damaged} == {
        (0, 0): "checksum does not match",
        (0, 1): "100 bytes instead of 260",
        (0, 2): "committed, but its chunk is missing",
        (1, 1): "commit record: 5 bytes instead of 52",
    }
    assert (report.checked, report.missing) == (9, 1)
    assert not report.ok
    with pytest.raises(StoreDamagedError, match=r"4 damaged of 9 tiles.*\(0, 0\) of ntk: checksum") as caught:
        report.raise_if_damaged(store.path)
    assert caught.value.exit_code == 3


def test_invalidated_tiles_are_not_committed(fill: Any) -> None:
    store = fill()
    invalidate(store, [("ntk", 0, 1), ("ntk", 2, 2)])
    done = store.committed()
    assert int(done.sum()) == 8
    assert not done[0, 1]
    assert not done[2, 2]


@pytest.mark.parametrize("name", ["ntk", "commits/ntk"])
@pytest.mark.parametrize(
    ("old", "new"),
    [('"separator": "/"', '"separator": "."'), ('"zarr_format": 3', '"zarr_format": 2'), ("{", "[")],
    ids=["separator", "format", "no JSON"],
)
def test_a_damaged_description_is_named_and_a_build_mends_it(fill: Any, name: str, old: str, new: str) -> None:
    store = fill()
    path = store.path / name / "zarr.json"
    whole = path.read_bytes()
    path.write_text(path.read_text().replace(old, new, 1))
    report = verify_gram(store)
    assert report.descriptions == (f"{name}/zarr.json",)
    assert not report.ok
    with pytest.raises(StoreDamagedError, match=rf"{name}/zarr\.json: .*; `advntk gram build` writes it anew"):
        report.raise_if_damaged(store.path)
    mend_layout(store.path, store.fingerprint, store.network)
    assert verify_gram(store).ok
    assert path.read_bytes() == whole


@pytest.mark.parametrize("where", ["another tile", "another kernel"])
def test_tiles_that_lie_in_the_place_of_others_are_damaged(fill: Any, where: str) -> None:
    """With their records, which are sound for themselves."""
    store = fill(kinds=("ntk", "nngp"))
    kind, i, j = ("ntk", 0, 1) if where == "another tile" else ("nngp", 0, 2)
    for array, tail in ((kind, ()), (f"commits/{kind}", ("0",))):
        source = store.path.joinpath(array, "c", str(i), str(j), *tail)
        shutil.copy(source, store.path.joinpath(array.replace(kind, "ntk"), "c", "0", "2", *tail))
    (damaged,) = verify_gram(store).damaged
    assert damaged == ("ntk", 0, 2, "commit record: belongs to another tile or store")
    assert not store.committed("ntk")[0, 2]
