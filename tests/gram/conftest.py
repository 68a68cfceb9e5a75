"""Small images, and stores filled without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.distributed import session
from advntk_dist.gram.fingerprint import make_fingerprint
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.worker import WorkerPool
from advntk_dist.networks import Network, network
from tests.filled import fill_store

TILE = 8
N = 27  # four rows of tiles, the last one ragged


@pytest.fixture(scope="session")
def net() -> Network:
    return network("mlp-2")


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (N, 4, 4, 1), dtype=np.uint8)


Fill = Callable[..., GramStore]


@pytest.fixture
def fill(net: Network, images: NDArray[np.uint8], tmp_path: Path) -> Fill:
    """Make a store at ``tmp_path / name`` and compute the given tiles (all by default) in this process."""

    def make(
        name: str = "gram.zarr",
        *,
        tile: int = TILE,
        dtype: str = "float32",
        kinds: tuple[str, ...] = ("ntk",),
        places: Iterable[tuple[int, int]] | None = None,
    ) -> GramStore:
        fingerprint = make_fingerprint(net, images, tile=tile, dtype=dtype, kinds=kinds)
        store = GramStore.create_or_open(tmp_path / name, fingerprint, net.spec.as_dict())
        list(fill_store(store, net, images, places=places))
        return store

    return make


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a build asks for Ray."""

    def refuse(*args: Any, **keywords: Any) -> None:
        raise AssertionError("this build must not start Ray")

    monkeypatch.setattr(session, "have_ray", refuse)


WARM = pytest.StashKey[WorkerPool]()


@pytest.fixture(scope="session")
def _warm(request: pytest.FixtureRequest, ray_cluster: None) -> Iterator[WorkerPool]:
    with WorkerPool() as pool:
        request.session.stash[WARM] = pool
        yield pool


@pytest.fixture
def pool(_warm: WorkerPool) -> WorkerPool:
    """Workers for builds that are about something else than their start; a build without them would wait for cores."""
    return _warm


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Free the cores of the cluster for the next test, unless that builds with the same workers."""
    names = getattr(nextitem, "fixturenames", ())
    here = nextitem is not None and nextitem.path.parent == Path(__file__).parent
    if WARM in item.session.stash and not (here and ("pool" in names or "ray_cluster" not in names)):
        item.session.stash[WARM].close()
