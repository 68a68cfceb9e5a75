from __future__ import annotations

from typing import Any

import pytest

from advntk_dist.errors import StoreDamagedError
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
        (1, 1): "commit record: 5 bytes instead of 44",
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
