"""Fixtures and options that all tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

import advntk_dist.gram  # noqa: F401  # sets what Ray reads when it is first imported

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


@pytest.fixture(autouse=True)
def no_fetched_datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the user of this machine has fetched must not change what a test finds."""
    monkeypatch.setenv("ADVNTK_DATA", str(tmp_path / "no-datasets"))


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
    import ray

    # "local": without it Ray joins whatever cluster runs on this machine
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def drive() -> Callable[..., str]:
    """Run a driver of several nodes as a process of its own: drive(script, *words, timeout=seconds), its last line."""
    # Nothing of this session's Ray; a busy machine takes longer to start one than Ray thinks.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
        "RAY_agent_register_timeout_ms": "200000",
        "RAY_raylet_start_wait_time_s": "100",
        "RAY_USAGE_STATS_ENABLED": "0",
    }

    def run(script: Path, *words: str, timeout: float) -> str:
        # A folder of its own: who calls ray.init() on this machine meanwhile must not find these nodes. Sockets want
        # a short path.
        with TemporaryDirectory(prefix="ar", dir="/tmp", ignore_cleanup_errors=True) as ray:
            done = subprocess.run(
                [sys.executable, str(script), *words],
                capture_output=True, text=True, env=environment | {"RAY_TMPDIR": ray}, timeout=timeout, check=False,
            )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout.splitlines()[-1]

    return run


@pytest.fixture(scope="session")
def spectral() -> Callable[..., NDArray[np.float64]]:
    """Make a symmetric matrix with a prescribed spectrum and random eigenvectors: spectral(values, seed=0)."""

    def make(values: ArrayLike, seed: int = 0) -> NDArray[np.float64]:
        eigenvalues = np.asarray(values, dtype=np.float64)
        n = len(eigenvalues)
        q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
        matrix = (q * eigenvalues) @ q.T
        return np.asarray((matrix + matrix.T) / 2)

    return make
