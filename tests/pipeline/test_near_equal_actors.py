"""Actors find the images that are almost training images as one process does; in a file of its own, as it uses Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from advntk_dist.config import load_config
from advntk_dist.pipeline.run import run
from advntk_dist.progress import Display
from tests.filled import fill_gram
from tests.pipeline.conftest import SMALL
from tests.pipeline.test_near_equal import near as near

QUIET = Display(quiet=True)


@pytest.mark.slow
def test_actors_find_the_same(near: Path, tmp_path: Path, ray_cluster: None) -> None:
    settings = (*SMALL, f"data.name={near}", "data.n_val=20", "data.n_test=50")
    found = []
    for name, more in (("here", ()), ("there", ("evaluation.workers=2",))):
        config = load_config("digits", (*settings, *more))
        fill_gram(config, tmp_path / name)
        found.append(run(config, tmp_path / name, display=QUIET).results["near_equal"])
    assert found[0]["close"] == found[1]["close"]
