"""A small finished run, made once for all tests of the pipeline, without Ray and without figures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from advntk_dist.config import RunConfig, load_config
from advntk_dist.pipeline.run import run
from advntk_dist.progress import Display
from tests.filled import asks_for_ray as asks_for_ray
from tests.filled import fill_gram, made_once
from tests.filled import no_ray as no_ray
from tests.undrawn import figures_are_undrawn as figures_are_undrawn
from tests.undrawn import undrawn

# Numbers of training images and of images in a batch as in tests/evaluation: their functions are compiled once.
SMALL = (
    "evaluation.tier=none",
    "data.n_train=200",
    "data.n_val=40",
    "data.n_test=60",
    "network.name=mlp-2",
    "gram.tile=80",
    "gram.workers=1",  # each takes seconds to start
    "attack.steps=3",
    "train.steps=4",
    "train.batch=16",
    "evaluation.times=[1e-3, 1e-1]",
    "evaluation.batch=40",
)


@pytest.fixture(scope="session")
def small_config() -> RunConfig:
    return load_config("digits", SMALL)


@pytest.fixture(scope="session")
def small_settings() -> tuple[str, ...]:
    return SMALL


@pytest.fixture(scope="session")
def filled(small_config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with the Gram matrix of the small run and nothing else; copies of it are runs without Ray."""
    return made_once("filled", lambda folder: fill_gram(small_config, folder), tmp_path_factory)


@pytest.fixture(scope="session")
def finished(small_config: RunConfig, filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        shutil.copytree(filled, folder)
        with undrawn():
            assert run(small_config, folder, display=Display(quiet=True)).worked

    return made_once("small", make, tmp_path_factory)


@pytest.fixture(scope="session")
def built(small_config: RunConfig, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """The same run with a Gram matrix that Ray has built."""
    folder = tmp_path_factory.mktemp("built") / "run"
    with undrawn():
        assert run(small_config, folder, display=Display(quiet=True)).worked
    return folder
