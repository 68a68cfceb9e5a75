"""Gram builds by 1, 2 and more actors, and a pass over the matrix, against what `advntk plan` predicts; writes JSON.

    python tests/benchmarks/scaling.py [--images FOLDER] [--n 24000] [--actors 1 2 4] [--repeat 1] [--out FILE]

The machine is calibrated first, for each number of actors, as `advntk plan` does it; from the unit costs alone each
build and the pass are predicted, and then run. Builds by different numbers of actors alternate, and medians are
compared. More actors than cores are marked as oversubscribed. FOLDER holds CIFAR-10; without it the images are random
ones with the power spectrum of photographs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from numpy.typing import NDArray

from advntk_dist.config import load_config
from advntk_dist.data import load_dataset
from advntk_dist.environment import environment, usable_cores
from advntk_dist.gram.build import build_gram
from advntk_dist.gram.store import GramStore
from advntk_dist.grid import TileGrid
from advntk_dist.networks import network
from advntk_dist.operators.tiled import TiledOperator
from advntk_dist.planning.calibrate import calibrate, stand_in
from advntk_dist.planning.calibration import Calibration
from advntk_dist.planning.cluster import Cluster, operator_plan
from advntk_dist.planning.counts import Images
from advntk_dist.planning.predict import START, Parts, build_seconds, largest, pass_seconds

CORES = usable_cores()
HERE = Cluster(1, CORES, 0, psutil.virtual_memory().total)
WITHIN = 0.25
"""Of the measured seconds that a prediction may miss."""
PASSES = 5


def images_of(folder: str | None, n: int) -> NDArray[np.uint8]:
    """So many images of CIFAR-10, or random ones of its shape: what they show does not change the time of a kernel."""
    if folder is not None:
        return load_dataset("cifar10", folder).x[:n]
    few = stand_in(min(n, 2048), Images((32, 32, 3), 10), 0)[0]
    return np.resize(few, (n, *few.shape[1:]))


def build(x: NDArray[np.uint8], store: Path, tile: int, actors: int) -> dict[str, Any]:
    """One build: elapsed seconds of all of it, and from the first worker to the last tile."""
    ready: list[float] = []
    tiles: list[float] = []

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "worker_ready":
            ready.append(time.perf_counter())

    def on_progress(done: int, total: int, receipt: Any) -> None:
        if receipt is not None:
            tiles.append(time.perf_counter())

    load, started = os.getloadavg()[0], time.perf_counter()
    build_gram(network("mlp-5"), x, store=store, tile=tile, workers=actors, on_event=on_event, on_progress=on_progress)
    return {
        "seconds": time.perf_counter() - started,
        "tile_seconds": tiles[-1] - ready[0],
        "workers": len(ready),
        "load": [load, os.getloadavg()[0]],
    }


def check_builds(
    arguments: argparse.Namespace, x: NDArray[np.uint8], calibrations: Mapping[int, Calibration], folder: Path
) -> dict[str, Any]:
    """Predict, build, and set side by side; the last store stays."""
    grid = TileGrid.square(len(x), arguments.tile)
    rows: dict[str, Any] = {}
    runs: dict[int, list[dict[str, Any]]] = {actors: [] for actors in arguments.actors}
    for turn in range(arguments.repeat):
        for actors in arguments.actors:
            store = folder / f"{turn}-{actors}.zarr"
            runs[actors].append(build(x, store, arguments.tile, actors))
            if (turn, actors) != (arguments.repeat - 1, arguments.actors[-1]):
                subprocess.run(["rm", "-r", str(store)], check=True)
    for actors, found in runs.items():
        measured = calibrations[actors]
        parts = build_seconds(grid, 4, actors, HERE, measured.costs, measured.edge_limit)
        predicted = {"seconds": sum(parts.values()), "tile_seconds": sum(parts.values()) - parts[START]}
        medians = {key: statistics.median(run[key] for run in found) for key in predicted}
        over = actors > CORES
        rows[str(actors)] = {"oversubscribed": over, "runs": found, **compared(parts, predicted, medians)}
        print_row(f"build, {actors} actor(s){', oversubscribed' if over else ''}", rows[str(actors)])
    return rows


def check_pass(folder: Path, measured: Calibration) -> dict[str, Any]:
    """One pass of the tiled operator over the store that was built, from the page cache."""
    store = GramStore.open(next(folder.glob("*-*.zarr")))
    operator = TiledOperator(store, threads=CORES)
    v = np.random.default_rng(0).standard_normal((store.n, 10))
    operator.matmat(v)
    spent = []
    for _ in range(PASSES):
        started = time.perf_counter()
        operator.matmat(v)
        spent.append(time.perf_counter() - started)
    sized = load_config(
        "cifar10-mlp5-full", (f"data.n_train={store.n}", f"gram.tile={store.tile}", "solver.operator=threads")
    )
    plan, costs = operator_plan(sized, HERE), measured.costs
    parts = pass_seconds(plan, store.grid, HERE, 10, costs.entry * measured.cores, costs.read_byte)
    found = compared(parts, {"seconds": sum(parts.values())}, {"seconds": statistics.median(spent)})
    print_row("one pass, 10 vectors", found)
    return found | {"n": store.n}


def compared(parts: Parts, predicted: dict[str, float], measured: dict[str, float]) -> dict[str, Any]:
    """Prediction and medians."""
    ratio = {key: predicted[key] / measured[key] for key in predicted}
    return {"bottleneck": largest(parts), "parts": parts, "predicted": predicted, "measured": measured, "ratio": ratio}


def print_row(name: str, row: Mapping[str, Any]) -> None:
    """Predicted, measured and their ratio."""
    for key, ratio in row["ratio"].items():
        missed = "" if abs(ratio - 1) <= WITHIN else f"  more than {100 * WITHIN:.0f}% away"
        print(
            f"{name:34}{key:13}{row['predicted'][key]:8.2f} s predicted{row['measured'][key]:8.2f} s measured"
            f"{ratio:6.2f}  ({row['bottleneck']}){missed}",
            flush=True,
        )


def main() -> None:
    """Measure, predict, check, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder with CIFAR-10")
    parser.add_argument("--n", type=int, default=24_000, help="images of the builds")
    parser.add_argument("--tile", type=int, default=2048)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeat", type=int, default=1, help="times that each build is made")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scaling.json")
    arguments = parser.parse_args()
    load = [os.getloadavg()[0]]
    shared = (f"data.path={json.dumps(arguments.images)}",) if arguments.images else ()
    x = images_of(arguments.images, arguments.n)
    calibrations: dict[int, Calibration] = {}
    for actors in arguments.actors:
        config = load_config("cifar10-mlp5-full", (*shared, f"gram.workers={actors}"))
        calibrations[actors] = calibrate(config, say=lambda line: print(line, flush=True))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        builds = check_builds(arguments, x, calibrations, folder)
        one_pass = check_pass(folder, calibrations[arguments.actors[0]])
    ray.shutdown()
    result = {
        "environment": environment() | {"load": [*load, os.getloadavg()[0]]},
        "network": "mlp-5",
        "images": "CIFAR-10" if arguments.images else "random, of CIFAR-10's shape",
        "n": len(x),
        "tile": arguments.tile,
        "repeat": arguments.repeat,
        "within": WITHIN,
        "builds": builds,
        "pass": one_pass,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
