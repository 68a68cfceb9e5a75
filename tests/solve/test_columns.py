"""Columns of a Krylov basis, in memory and on disk: the same numbers, bounded memory, nothing left behind."""

from __future__ import annotations

import errno
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.errors import SolverError, StoreDamagedError
from advntk_dist.solve.columns import SLAB, ColumnBudget, Columns

N = 500
_RNG = np.random.default_rng(0)
BLOCKS = [_RNG.standard_normal((N, r)) for r in (10, 10, 9, 7, 10, 0, 3, 10, 10, 10)]
WHOLE = np.hstack(BLOCKS)
M = WHOLE.shape[1]


def _filled(budget: ColumnBudget | None) -> Columns:
    columns = Columns(N, budget)
    for block in BLOCKS:
        columns.append(block)
    return columns


@pytest.mark.parametrize("nbytes", [None, 10**9, 8 * N * 40, 8 * N * 9, 1])
def test_the_same_matrix_wherever_it_lies(tmp_path: Path, nbytes: int | None) -> None:
    budget = ColumnBudget(nbytes, tmp_path)
    columns = _filled(budget)
    assert columns.shape == (N, M)
    assert (budget.spilled_bytes > 0) == (nbytes is not None and nbytes < WHOLE.nbytes)
    np.testing.assert_array_equal(columns.dense(), WHOLE)
    np.testing.assert_array_equal(columns.rows(slice(13, 77)), WHOLE[13:77])
    block, small = _RNG.standard_normal((N, 4)), _RNG.standard_normal((M, 4))
    np.testing.assert_allclose(columns.dot(block), WHOLE.T @ block, atol=1e-12)
    np.testing.assert_allclose(columns.times(small), WHOLE @ small, atol=1e-12)
    left = block.copy()
    columns.subtract(left, small)
    np.testing.assert_allclose(left, block - WHOLE @ small, atol=1e-12)


def test_memory_stays_within_the_budget_and_the_image_goes_first(tmp_path: Path) -> None:
    nbytes = 8 * N * 40
    budget = ColumnBudget(nbytes, tmp_path)
    q, image = Columns(N, budget), Columns(N, budget)
    first_of_q = 0
    for number in range(30):
        for columns in (q, image):
            columns.append(BLOCKS[0])
            assert q.held_bytes + image.held_bytes <= nbytes
        if not first_of_q and q.held_bytes < 8 * N * q.m:
            first_of_q = number
            assert image.held_bytes < 8 * N * 10
    assert first_of_q > 1


def test_without_a_limit_slabs_are_filled_whole() -> None:
    columns = Columns(N)
    columns.append(np.ones((N, SLAB + 1)))
    assert columns.held_bytes == 2 * 8 * N * SLAB


def test_chunks_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advntk_dist.solve.columns._CHUNK_BYTES", 8 * 5 * 70)
    columns = _filled(ColumnBudget(8 * N * 40, tmp_path))
    pieces: list[NDArray[Any]] = [values for _, _, values in columns._pieces() if values.base is not None]
    assert max(values.shape[0] for values in pieces if values.shape[0] < N) == 70
    np.testing.assert_array_equal(columns.dense(), WHOLE)


def test_what_was_spilled_is_deleted_with_the_basis(tmp_path: Path) -> None:
    scratch = tmp_path / "not" / "yet"
    columns = _filled(ColumnBudget(8 * N * 9, scratch))
    assert len(list(scratch.iterdir())) == 1
    gc.disable()  # reference counting alone has to do it
    try:
        del columns
        assert list(scratch.iterdir()) == []
    finally:
        gc.enable()


def test_a_disk_that_is_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **keywords: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zarr.create_array", full)
    with pytest.raises(SolverError, match=r"No space left.*solver\.memory"):
        _filled(ColumnBudget(8 * N * 9, tmp_path))


@pytest.mark.parametrize("harm", ["flip", "gone"])
def test_what_was_spilled_and_is_damaged_is_noticed(tmp_path: Path, harm: str) -> None:
    columns = _filled(ColumnBudget(8 * N * 9, tmp_path))
    chunk = next(path for path in sorted(tmp_path.rglob("c/*/*")) if path.is_file())
    if harm == "gone":
        chunk.unlink()
    else:
        payload = bytearray(chunk.read_bytes())
        payload[100] ^= 1
        chunk.write_bytes(bytes(payload))
    with pytest.raises(StoreDamagedError, match="Krylov basis"):
        columns.dense()
