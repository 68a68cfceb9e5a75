"""Networks and predictors pickle, as users put them into process pools, caches and files."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np

from advntk_dist.networks import network
from advntk_dist.predictor import KernelPredictor


def test_a_predictor_is_the_same_to_the_bit_in_a_fresh_process(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, c = rng.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8), rng.standard_normal((20, 3))
    asked, cotangent = rng.uniform(-0.5, 0.5, (5, 8, 8, 1)).astype(np.float32), rng.standard_normal((5, 3))
    predictor = KernelPredictor(network("mlp-3", W_std=1.5), x, c, batch=4)
    np.savez(tmp_path / "asked.npz", x=asked, u=cotangent)
    (tmp_path / "predictor").write_bytes(pickle.dumps(predictor))
    program = (
        "import pickle, sys, numpy as np\n"
        "p, asked = pickle.load(open('predictor', 'rb')), np.load('asked.npz')\n"
        "np.savez('found.npz', f=p.predict(asked['x']), g=p.vjp(asked['x'], asked['u']))\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=200)
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_array_equal(found["f"], predictor.predict(asked))
    np.testing.assert_array_equal(found["g"], predictor.vjp(asked, cotangent))
    assert pickle.loads(pickle.dumps(predictor)).net.spec == predictor.net.spec
