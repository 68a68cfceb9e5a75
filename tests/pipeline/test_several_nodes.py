"""Runs on several nodes, the matrix resident in their memory: the numbers of a run on one, whatever nodes are lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.gram.store import GramStore
from advntk_dist.storage import Records
from advntk_dist.storage.records import read_group
from tests.pipeline.conftest import SMALL, results_of

DRIVER = Path(__file__).with_name("nodes_driver.py")
Drive = Callable[..., str]

TINY = (
    *("data.n_train=60", "data.n_val=16", "data.n_test=24", "network.name=mlp-2", "gram.tile=10"),
    *("evaluation.workers=1", "solver.operator=resident", "attack.steps=2", "train.steps=3", "train.batch=16"),
    *("evaluation.times=[1e-1]", "evaluation.batch=8"),
)


@pytest.fixture(scope="module")
def settings() -> list[str]:
    elastic = [setting for setting in SMALL if not setting.startswith("gram.workers")]
    # 28 tiles and 4 batches a time, so that all nodes get some
    return [*elastic, "gram.tile=32", "solver.operator=resident", "evaluation.batch=16"]


@pytest.fixture(scope="module")
def undisturbed(settings: list[str], drive: Drive, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("nodes") / "run"
    return folder, json.loads(drive(DRIVER, str(folder), "keep", *settings, timeout=500))


def test_a_job_loses_a_node_in_training_and_ends_as_an_undisturbed_one(drive: Drive, tmp_path: Path) -> None:
    where = json.loads(drive(DRIVER, str(tmp_path / "run"), "short", *TINY, timeout=280))
    assert "2 Ray actors on 2 nodes" in where["operator"]
    assert where["lost"] == ["train"]
    assert where["replaced"] == 1, "the holder on the lost node has gone to another"
    assert _numbers(tmp_path / "run") == _numbers(tmp_path / "undisturbed")
    varpi, expected = _varpi(tmp_path / "run"), _varpi(tmp_path / "undisturbed")
    assert (expected[0] != expected[-1]).all(), "every image has been trained"
    # Sums in another order: equal to rounding, as training amplifies it.
    np.testing.assert_allclose(varpi, expected, rtol=0, atol=1e-5 * expected.max())


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_three_nodes_and_one_agree(undisturbed: tuple[Path, Any], finished: Path) -> None:
    folder, where = undisturbed
    assert "3 Ray actors on 3 nodes" in where["operator"]
    assert where["builders"] >= 2
    assert _numbers(folder) == _numbers(finished)
    varpi, expected = _varpi(folder), _varpi(finished)
    assert expected[-1].max() > 0
    # Tiles of another size and sums in another order: equal to rounding, as training amplifies it.
    np.testing.assert_allclose(varpi, expected, rtol=0, atol=1e-5 * expected.max())


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_nodes_lost_in_every_stage_change_no_bit(
    undisturbed: tuple[Path, Any], settings: list[str], drive: Drive, tmp_path: Path
) -> None:
    folder, _ = undisturbed
    where = json.loads(drive(DRIVER, str(tmp_path / "run"), "lose", *settings, timeout=500))
    assert "3 Ray actors on 3 nodes" in where["operator"], "one that joined after the first loss holds tiles"
    assert where["lost"] == ["evaluate", "gram", "train"]
    assert where["replaced"] == 1, "the holder on the lost node has gone to another"
    assert where["evaluators_lost"] >= 1
    _same_tiles(tmp_path / "run", folder)
    np.testing.assert_array_equal(_varpi(tmp_path / "run"), _varpi(folder))
    mine, other = (results_of(root) for root in (tmp_path / "run", folder))
    assert mine["methods"] == other["methods"]
    assert mine["curve"] == other["curve"]


def _numbers(folder: Path) -> dict[str, tuple[float, float]]:
    methods = results_of(folder)["methods"]
    return {name: (row["clean"], row["robust"]) for name, row in methods.items()}


def _same_tiles(*folders: Path) -> None:
    ours, theirs = (GramStore.open(folder / "gram.zarr") for folder in folders)
    for t in theirs.grid:
        np.testing.assert_array_equal(ours.read_tile("ntk", t.i, t.j), theirs.read_tile("ntk", t.i, t.j))


def _varpi(folder: Path) -> NDArray[Any]:
    table = Records.stored(read_group(folder / "train.zarr")[0], "varpi")
    assert table is not None
    found = table.read_all()
    assert found is not None
    return found
