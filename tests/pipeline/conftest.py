"""A small finished run, made once for all tests of the pipeline, without Ray and without figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.attacks.registry import TIERS, Tier
from advntk_dist.config import RunConfig, load_config
from advntk_dist.pipeline.run import run
from advntk_dist.progress import Display
from tests.conftest import Command as Command
from tests.conftest import Refused as Refused
from tests.filled import asks_for_ray as asks_for_ray
from tests.filled import fill_gram, made_once
from tests.filled import no_ray as no_ray
from tests.terminal import setting_words
from tests.undrawn import figures_are_undrawn as figures_are_undrawn
from tests.undrawn import undrawn

# Numbers of training images and of images in a batch as in tests/evaluation: their functions are compiled once.
# One worker of the build, as each takes seconds to start.
SMALL = (
    *("evaluation.tier=none", "data.n_train=200", "data.n_val=40", "data.n_test=60", "network.name=mlp-2"),
    *("gram.tile=80", "gram.workers=1", "attack.name=pgd", "attack.steps=3", "train.steps=4", "train.batch=16"),
    *("evaluation.times=[1e-3, 1e-1]", "evaluation.batch=40"),
)


def small(*more: str) -> RunConfig:
    """The configuration of the small run, with more settings."""
    return load_config("digits", (*SMALL, *more))


def command_of(folder: Path) -> list[str]:
    """The command of the small run."""
    return ["run", "digits", "--out", str(folder), *setting_words(SMALL)]


def results_of(folder: Path) -> dict[str, Any]:
    """The results of a run."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def comparable(results: dict[str, Any]) -> dict[str, Any]:
    """What of results does not depend on where and when they are computed."""
    differ = ("seconds", "peak_bytes", "tier", "format", "checksum")
    return {key: value for key, value in results.items() if key not in differ}


def events_of(folder: Path) -> list[dict[str, Any]]:
    """The events of a run."""
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


@pytest.fixture
def quick_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attacks of tier standard with fewer steps and queries."""
    monkeypatch.setitem(TIERS, "standard", Tier("quick", 4, 1, 10))


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with the Gram matrix of the small run and nothing else; copies of it are runs without Ray."""
    return made_once("filled", lambda folder: fill_gram(small(), folder), tmp_path_factory)


@pytest.fixture(scope="session")
def finished(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        shutil.copytree(filled, folder)
        with undrawn():
            assert run(small(), folder, display=Display(quiet=True)).worked

    return made_once("small", make, tmp_path_factory)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The finished run, to be changed."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """The same run with a Gram matrix that Ray has built."""
    folder = tmp_path_factory.mktemp("built") / "run"
    with undrawn():
        assert run(small(), folder, display=Display(quiet=True)).worked
    return folder
