"""Fixtures and options that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_OPTIONAL = {
    "slow": "takes minutes",
    "gpu": "needs an NVIDIA GPU",
    "cluster": "starts clusters of several nodes",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for marker, why in _OPTIONAL.items():
        parser.addoption(f"--run-{marker}", action="store_true", help=f"also run tests marked {marker} ({why})")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for marker, why in _OPTIONAL.items():
            if marker in item.keywords and not config.getoption(f"--run-{marker}"):
                item.add_marker(pytest.mark.skip(reason=f"{why}; run with --run-{marker}"))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real data and golden values beside the checkout, where they are at hand."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no shared folder beside the checkout (real CIFAR-10 images, golden values)")
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One real Ray on this machine for the whole session, with two CPUs."""
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    yield
    ray.shutdown()
