from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import advntk_dist.operators.audit as audit_module
from advntk_dist.errors import StoreDamagedError, StoreIncompleteError, StoreMismatchError
from advntk_dist.gram.verify import verify_gram
from advntk_dist.networks import Network
from advntk_dist.operators.audit import audit_gram
from advntk_dist.pipeline.gram import VerifyResult
from tests.conftest import Command


def test_audit_of_a_sound_store(fill: Any, net: Network, images: NDArray[np.uint8]) -> None:
    report = audit_gram(fill(), images, tiles=3, seed=5)
    assert len(report.tiles) == 3
    assert any(i == j for i, j in report.tiles)
    assert report == audit_gram(fill(), images, tiles=3, seed=5)
    assert 0 < report.largest_difference < 1e-6
    report.raise_if_wrong("here")
    x = images / 255.0 - 0.5
    exact = np.linalg.eigvalsh(net.ntk(x, x))
    assert report.smallest_eigenvalue == pytest.approx(exact[0], abs=2 * report.eigenvalue_noise)
    assert report.largest_eigenvalue == pytest.approx(exact[-1], rel=1e-5)
    assert report.above_noise
    assert report.passes == 0


def test_audit_finds_a_wrong_value_that_no_checksum_can(fill: Any, images: NDArray[np.uint8]) -> None:
    store = fill(places=[(0, 0)])
    for t in store.grid:
        if (t.i, t.j) != (0, 0):
            values = fill("right.zarr").read_tile("ntk", t.i, t.j).copy()
            if (t.i, t.j) == (1, 2):
                values[3, 4] += 0.25
            store.write_tile("ntk", t, values)
    report = audit_gram(store, images, tiles=10)
    assert report.worst == (11, 20)
    assert report.largest_difference > 0.05
    assert not report.within_limit
    assert "NOT within the limit of 0.001" in str(report)
    with pytest.raises(StoreDamagedError, match=r"values of ntk differ.*at \(11, 20\)") as caught:
        report.raise_if_wrong(store.path)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    audit_gram(store, images, tiles=10, limit=0.5).raise_if_wrong(store.path)


def test_verify_says_that_values_are_wrong_and_exits_with_3(
    fill: Any,
    images: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    advntk: Command,
) -> None:
    store = fill(places=[])
    for t in store.grid:
        values = fill("right.zarr").read_tile("ntk", t.i, t.j).copy()
        if t.on_diagonal:  # what equal images had where a product rounded otherwise than a sum
            np.fill_diagonal(values, 0.998 * np.diagonal(values))
        store.write_tile("ntk", t, values)
    found = VerifyResult(store, verify_gram(store), audit_gram(store, images))
    monkeypatch.setattr("advntk_dist.pipeline.gram.verify", lambda path, **keywords: found)
    for flags in ([], ["--json"]):
        code, out, err = advntk("gram", "verify", store.path, *flags)
        assert (code, err.count("\n")) == (3, 1)
        assert "values of ntk differ from float64" in err
        if flags:
            values = json.loads(out)["values"]
            assert values["within_limit"] is False
            assert values["largest_difference"] == pytest.approx(0.002, rel=0.01)
        else:
            assert "NOT within the limit" in out


def test_float64_stores_differ_by_rounding_alone(fill: Any, images: NDArray[np.uint8]) -> None:
    report = audit_gram(fill(dtype="float64", kinds=("ntk", "nngp")), images, kind="nngp", tiles=10)
    assert report.largest_difference < 1e-7


def test_lanczos_brackets_the_spectrum(fill: Any, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    exact = audit_gram(fill(), images, tiles=1)
    monkeypatch.setattr(audit_module, "DENSE", 10)
    few = audit_gram(fill(), images, tiles=1, passes=6)
    assert few.passes == 6
    assert few.smallest_eigenvalue is not None
    assert exact.smallest_eigenvalue is not None
    assert few.smallest_eigenvalue >= exact.smallest_eigenvalue * (1 - 1e-6)
    assert few.largest_eigenvalue == pytest.approx(exact.largest_eigenvalue, rel=1e-3)
    all_steps = audit_gram(fill(), images, tiles=1, passes=27)
    assert all_steps.smallest_eigenvalue == pytest.approx(exact.smallest_eigenvalue, rel=1e-6)


def test_audit_refuses_other_images_and_unfinished_stores(fill: Any, images: NDArray[np.uint8]) -> None:
    with pytest.raises(StoreMismatchError, match="images"):
        audit_gram(fill(), images[::-1])
    with pytest.raises(StoreIncompleteError):
        audit_gram(fill("half.zarr", places=[(0, 0)]), images)
