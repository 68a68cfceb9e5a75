from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from advntk_dist.gram.tiles import TileComputer, block_edge
from advntk_dist.networks import Network, network


@pytest.mark.parametrize(("tile", "limit", "edge"), [(2048, 1024, 1024), (1500, 1024, 750), (7, 1024, 7), (9, 4, 3)])
def test_blocks_are_equal_parts(tile: int, limit: int, edge: int) -> None:
    assert block_edge(tile, limit) == edge


@pytest.mark.parametrize("kinds", [("ntk",), ("nngp",), ("ntk", "nngp")])
def test_whole_ragged_and_symmetric_tiles_compile_once(
    net: Network, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...]
) -> None:
    x = images / 255.0 - 0.5
    monkeypatch.setattr(net.compiled, "block_edge", lambda *_: 4)
    compute = TileComputer(net, 10, kinds, x.shape[1:], np.dtype(np.float64))
    assert compute.edge == 4
    assert compute.warm_up(x, x) > 0
    for rows, cols in ((x[:10], x[10:20]), (x[:10], x[20:]), (x[20:], x[:3])):
        for kind, values in compute(rows, cols, symmetric=False).items():
            expected = net.ntk(rows, cols) if kind == "ntk" else net.nngp(rows, cols)
            np.testing.assert_allclose(values, expected, rtol=1e-7)
    square = compute(x[20:], x[20:], symmetric=True)
    for values in square.values():
        np.testing.assert_array_equal(values, values.T)
    assert compute._block._cache_size() == 1  # type: ignore[attr-defined]


def digests() -> list[str]:
    """Of tiles at whose sizes XLA takes small matrix products another way in one thread than in several."""
    found = []
    for name, edge in (("mlp-2", 8), ("mlp-2", 32), ("mlp-5", 32)):
        x = np.random.default_rng(edge).uniform(-0.5, 0.5, (2 * edge, 4, 4, 1)).astype(np.float32)
        compute = TileComputer(network(name), edge, ("ntk",), x.shape[1:], x.dtype)
        values = compute(x[:edge], x[edge:], symmetric=False)["ntk"]
        found.append(hashlib.sha256(values.tobytes()).hexdigest())
    return found


def test_bytes_do_not_depend_on_the_process_that_computes_them() -> None:
    other = os.environ | {"NPROC": "1", "OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    done = subprocess.run(
        [sys.executable, __file__], env=other, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == digests()


if __name__ == "__main__":
    print(*digests())
