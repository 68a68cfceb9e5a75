"""This checkout against another one, in turn, in the shapes that users call; writes JSON.

    python tests/benchmarks/before.py OTHER CIFAR [--parts kernels gram solver run] [--repeats 5] [--out FILE]

OTHER is a second checkout, as of the commit before; both run with this Python and its packages. "kernels" are values
and input gradients of built-in networks, "gram" a build by workers that are there already, with the images and tiles of
a real run, "solver" a pass, a solve and a gradient in varpi from that store, "run" the whole of `advntk run digits` in
a process of its own. Each part runs in a new process; the two checkouts take turns, and ratios are those of a pair.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import ROOT, commit, machine, options, write

N, TILE = 6000, 1024
_BEGIN = f"""
import json, statistics, sys, time
import numpy as np
import advntk_dist as advntk

def median(call, times):
    call()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return statistics.median(found)

folder, cifar = sys.argv[1:]
x = advntk.load_dataset("cifar10", cifar).x[:{N}]
floats = (x / 255 - 0.5).astype(np.float32)
"""
PARTS = {
    "kernels": """
found = {}
for name, m in (("mlp-5", 1024), ("cnn-3", 64), ("cnn-10", 16)):
    net, a, b = advntk.network(name), floats[:m], floats[m : 2 * m]
    weight = np.ones((m, m), np.float32)
    found[f"{name} values {m} x {m}"] = median(lambda: net.ntk(a, b), 5)
    found[f"{name} gradients {m} x {m}"] = median(lambda: net.ntk_vjp(a, b, weight), 3)
""",
    "gram": f"""
net = advntk.network("mlp-5")
with advntk.WorkerPool() as pool:
    advntk.build_gram(net, x[:2048], store=folder + "/first.zarr", tile={TILE}, pool=pool)
    began = time.perf_counter()
    advntk.build_gram(net, x, store=folder + "/gram.zarr", tile={TILE}, pool=pool)
    found = {{"build of {N} images by workers that are there": time.perf_counter() - began}}
""",
    "solver": """
from advntk_dist.operators import TiledOperator
from advntk_dist.gram.store import GramStore
store = GramStore.open(folder + "/gram.zarr")
rng = np.random.default_rng(0)
y = np.eye(10)[rng.integers(0, 10, len(x))]
operator = TiledOperator(store, threads=2)
dynamics = advntk.ATDynamics(operator, y)
varpi, k_val = np.full(len(x), 0.001), np.asarray(advntk.network("mlp-5").ntk(floats[:64], floats), np.float64)
found = {
    "pass over the stored matrix, 10 vectors": median(lambda: operator.matmat(y), 5),
    "solve at t = 0.001": median(lambda: dynamics.coefficients(varpi, tol=1e-6), 3),
    "loss and gradient in varpi": median(lambda: dynamics.loss_and_gradient(varpi, k_val, y[:64]), 3),
}
""",
}


def measure(checkout: Path, part: str, folder: Path, cifar: Path) -> dict[str, float]:
    """Seconds of a part with the package of a checkout, by what is measured."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    if part == "run":
        words = ["-m", "advntk_dist", "-q", "run", "digits", "--out", str(folder / f"run-{time.monotonic_ns()}")]
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], env=environment, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
        return {"advntk run digits": time.perf_counter() - began}
    program = f"{_BEGIN}{PARTS[part]}\nprint(json.dumps(found))"
    words = [sys.executable, "-c", program, str(folder), str(cifar)]
    done = subprocess.run(words, env=environment, cwd=checkout, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = options(__doc__, "before.json")
    parser.add_argument("other", type=Path, help="the second checkout")
    parser.add_argument("cifar", type=Path, help="folder with CIFAR-10")
    parser.add_argument("--parts", nargs="+", default=[*PARTS, "run"], choices=[*PARTS, "run"])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    sides = {"this": ROOT, "other": arguments.other.resolve()}
    report: dict[str, Any] = {"environment": machine(), "commits": {name: commit(p) for name, p in sides.items()}}
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.parts:
            samples: list[dict[str, dict[str, float]]] = []
            for turn in range(arguments.repeats):
                order = list(sides) if turn % 2 == 0 else list(reversed(sides))
                pair = {}
                for name in order:
                    place = Path(folder) / f"{name}-{turn if part == 'gram' else 0}"
                    place.mkdir(exist_ok=True)
                    pair[name] = measure(sides[name], part, place, arguments.cifar.resolve())
                samples.append(pair)
            for what in samples[0]["this"]:
                ratios = [pair["this"][what] / pair["other"][what] for pair in samples]
                seconds = {name: statistics.median(pair[name][what] for pair in samples) for name in sides}
                ratio = statistics.median(ratios)
                report[what] = seconds | {"ratio": ratio, "ratios": ratios}
                print(f"{what}: {seconds['this']:.3f} s against {seconds['other']:.3f} s, ratio {ratio:.3f}")
    write(arguments.out, report)


if __name__ == "__main__":
    main()
