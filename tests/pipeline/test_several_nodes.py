"""A run on a cluster of several nodes, its matrix resident in their memory, gives the numbers of a run on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from advntk_dist.storage import Records


@pytest.mark.cluster
@pytest.mark.timeout(500)
def test_three_nodes_and_one_agree(finished: Path, small_settings: tuple[str, ...], tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    settings = [*small_settings, "gram.tile=16", "solver.operator=resident"]  # 36 tiles, so that all nodes get some
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("nodes_driver.py")), str(tmp_path / "run"), *settings],
        capture_output=True, text=True, env=environment, timeout=450, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    where = json.loads(done.stdout.splitlines()[-1])
    assert "3 Ray actors on 3 nodes" in where["operator"]
    assert where["builders"] >= 2
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "run", finished))
    for method, row in theirs["methods"].items():
        assert {key: ours["methods"][method][key] for key in ("clean", "robust")} == {
            key: row[key] for key in ("clean", "robust")
        }
    steps = theirs["methods"]["adv_ntk"]["steps"]
    varpi, expected = (
        Records(zarr.open_group(folder / "train.zarr", mode="r"), "varpi", steps + 1, (120,)).read_all()
        for folder in (tmp_path / "run", finished)
    )
    assert varpi is not None
    assert expected is not None
    assert expected[-1].max() > 0
    # Tiles of another size and sums in another order: equal to rounding, as training amplifies it.
    np.testing.assert_allclose(varpi, expected, rtol=0, atol=1e-5 * expected.max())
