"""A small finished run, made once for all tests of the pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from advntk_dist.config import RunConfig, load_config
from advntk_dist.pipeline.run import run
from advntk_dist.progress import Display

SMALL = (
    "data.n_train=120",
    "data.n_val=40",
    "data.n_test=60",
    "network.name=mlp-2",
    "gram.tile=50",
    "gram.workers=1",  # each takes seconds to start
    "attack.steps=3",
    "train.steps=4",
    "train.batch=16",
    "evaluation.times=[1e-3, 1e-1]",
    "evaluation.batch=32",
)


@pytest.fixture(scope="session")
def small_config() -> RunConfig:
    return load_config("digits", SMALL)


@pytest.fixture(scope="session")
def small_settings() -> tuple[str, ...]:
    return SMALL


@pytest.fixture(scope="session")
def finished(small_config: RunConfig, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    outcome = run(small_config, folder, display=Display(quiet=True))
    assert outcome.worked
    return folder
