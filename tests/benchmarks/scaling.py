"""Gram builds by 1, 2 and more actors against the simulation, and what it predicts for 1 to 512 GPUs; writes JSON.

    python tests/benchmarks/scaling.py [--images FOLDER] [--n 24000] [--actors 1 2 4] [--repeat 1] [--out FILE]

Constants are measured first, each by itself and on little: a pair of images on one core with the others idle and with
all of them at work, a tile written, a tile handed out, a worker started. From them alone each build and each pass is
predicted, and then run; builds by different numbers of actors alternate, and medians are compared. More actors than
cores are marked as oversubscribed. FOLDER holds CIFAR-10; without it the images are random ones with the power spectrum
of photographs.

With --recorded nothing is built: constants and builds are those that gram.py and solver.py have recorded on such a
machine in results/gram-mlp-5.json and results/solver.json, which is better than to measure a busy one.

The table for GPUs takes the seconds a pair from results/kernels-gpu.json where gpu.py has written it. Without that
file they are assumed: operations a pair over a share of the device's peak. Every constant stands in the JSON with its
source.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from advntk_dist.config import RunConfig, load_config
from advntk_dist.data import load_dataset
from advntk_dist.distributed.worker import import_path, worker_environment
from advntk_dist.environment import environment
from advntk_dist.gram.build import build_gram
from advntk_dist.gram.fingerprint import make_fingerprint
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.tiles import TileComputer, compute_images
from advntk_dist.grid import TileGrid
from advntk_dist.networks import network
from advntk_dist.operators.tiled import TiledOperator
from advntk_dist.pipeline.run import run
from advntk_dist.planning.build import IMAGES, START, BuildActors, StageSeconds, simulate_build
from advntk_dist.planning.calibrate import calibrate
from advntk_dist.planning.calibration import Calibration
from advntk_dist.planning.cluster import ASSUMED, Cluster, Constants, links
from advntk_dist.planning.passes import matrix_pass, operator_plan
from advntk_dist.planning.pilot import run_pilot, stand_in, subject_of
from advntk_dist.planning.predict import predict
from advntk_dist.planning.scaling import GpuNodes, on_gpu, scaling_table
from advntk_dist.progress import Display
from advntk_dist.text import duration, size

RESULTS = Path(__file__).parent / "results"
CORES = len(os.sched_getaffinity(0))
SIZES = (50_000, 200_000, 1_000_000, 5_000_000)
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
WITHIN = 0.25
"""Of the measured seconds that a prediction may miss."""
HERE = "measured on this machine"
PEAK, OPERATIONS = 66.9e12, {"value": 2 * 3072 + 82 * 4, "gradient": 4 * 3072 + 249 * 4}
"""Float32 operations a second of an H200, its vendor says; operations a pair of mlp-5 (results/kernels-cpu.json)."""

Given = dict[str, tuple[float, str]]


def recorded() -> tuple[dict[str, Any], Given]:
    """Figures of a small build, and constants, as they were measured on a quiet machine."""
    gram, solver = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("gram-mlp-5", "solver"))
    where, one, two, a_pass = "recorded: results/gram-mlp-5.json", gram["one"], gram["two"], solver["results"]["pass"]
    pairs = gram["kernel_seconds_a_pair"]
    # Workers start while the driver prepares images: 8,000 of them tell the start, and more the time of an image.
    start = gram["small"]["seconds"] - gram["small"]["tile_seconds"]
    figures = {
        "start": start,
        "stop": 0.0,
        "pair": pairs["ntk"],
        "write_byte": one["write_seconds"] / (one["tiles"] * 4 * gram["tile"] ** 2),
        "edge_limit": 1024,
        "read_tile": a_pass["seconds"]["cached"]["read"]["wall"] / 300,
    }
    given: Given = {
        "start": (start, where),
        "pair": (pairs["ntk"], where),
        "crowding": (pairs["ntk, all cores busy"] / pairs["ntk"], where),
        "write_tile": (0.0, f"in write_byte; {where}"),
        "entry": (
            CORES * a_pass["seconds"]["cached"]["pass"]["wall"] / a_pass["n"] ** 2,
            "recorded: results/solver.json",
        ),
        "read_byte": (
            a_pass["seconds"]["from disk"]["read"]["wall"] / a_pass["bytes"],
            "recorded: results/solver.json",
        ),
        "write_byte": (figures["write_byte"], where),
    }
    assert gram["environment"]["cpu_count"] == CORES, "recorded on another machine"
    assert two["workers"] == 2
    return figures, given


def check_recorded(constants: Constants) -> dict[str, Any]:
    """Builds that gram.py recorded, against the simulation."""
    gram = json.loads((RESULTS / "gram-mlp-5.json").read_text())
    rows = {}
    for name in ("one", "two", "full"):
        run, actors = gram[name], gram[name]["workers"]
        grid = TileGrid.square(run["n"], gram["tile"])
        stage = simulate_build(grid, 4, 4 * 3072 * run["n"], BuildActors(actors, 1, CORES), constants, 1024)
        rows[f"{actors}, n = {run['n']}"] = {"oversubscribed": False, **compared(stage, [run])}
        print_row(f"build, {actors} actor(s), n = {run['n']}", rows[f"{actors}, n = {run['n']}"])
    return rows


def measure_kernel(arguments: argparse.Namespace) -> float:
    """Seconds a pair of a tile as an actor computes it, in this process alone."""
    x = compute_images(stand_in_images(2 * arguments.tile), arguments.tile, "float32")
    tile = arguments.tile
    compute = TileComputer(network("mlp-5"), tile, ("ntk",), x.shape[1:], np.dtype(np.float32))
    compute.warm_up(x[:tile], x[tile:])
    into = {"ntk": np.empty((tile, tile), np.float32)}
    times = []
    end = time.perf_counter() + 4
    while time.perf_counter() < end:
        started = time.perf_counter()
        compute(x[:tile], x[tile:], symmetric=False, into=into)
        times.append(time.perf_counter() - started)
    return statistics.median(times) / tile**2


def kernel_in_processes(arguments: argparse.Namespace, copies: int) -> float:
    """The same in processes of their own with a core each, at the same time; their mean."""
    env = {**os.environ, **worker_environment(1, gpu=False)}
    command = [sys.executable, __file__, "--part", "kernel", "--tile", str(arguments.tile)]
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(copies)]
    found = []
    for process in running:
        out, _ = process.communicate(timeout=300)
        if process.returncode:
            raise SystemExit("measuring the kernel failed")
        found.append(float(out.splitlines()[-1]))
    return statistics.fmean(found)


def stand_in_images(n: int) -> NDArray[np.uint8]:
    """Random images of CIFAR-10's shape; what they show does not change the time of a kernel."""
    from advntk_dist.planning.counts import Images

    few = stand_in(min(n, 2048), Images((32, 32, 3), 10), 0)[0]
    return np.resize(few, (n, *few.shape[1:]))


def measure_writing(folder: Path, tile: int, count: int) -> tuple[float, float]:
    """Seconds of a tile written, checked and committed: elapsed, and of the core."""
    net = network("mlp-2")
    x = np.zeros((tile * count, 1, 1, 1), np.uint8)
    fingerprint = make_fingerprint(net, x, tile=tile, dtype="float32", kinds=("ntk",), columns=None)
    store = GramStore.create_or_open(folder / f"written-{tile}", fingerprint, net.spec.as_dict())
    half = np.random.default_rng(0).standard_normal((tile, tile), dtype=np.float32)
    values = half + half.T
    elapsed, core = [], []
    for t in list(store.grid)[: 4 * count]:
        started, busy = time.perf_counter(), time.thread_time()
        store.write_tile("ntk", t, values)
        elapsed.append(time.perf_counter() - started)
        core.append(time.thread_time() - busy)
    return statistics.median(elapsed), statistics.median(core)


def measure_dispatch(folder: Path) -> float:
    """Seconds of the driver's core a tile, from a build of many tiny tiles."""
    busy: list[float] = []
    x = np.random.default_rng(0).integers(0, 256, (640, 4, 4, 1), dtype=np.uint8)
    build_gram(
        network("mlp-2"),
        x,
        store=folder / "tiny",
        tile=16,
        workers=1,
        on_progress=lambda done, total, receipt: busy.append(time.process_time()),
    )
    return (busy[-1] - busy[1]) / (len(busy) - 2)


class _Nothing:
    def nothing(self) -> None:
        """Answer."""


def measure_call() -> float:
    """Seconds of the driver's core for a call of an actor and its answer."""
    actor: Any = ray.remote(_Nothing).options(num_cpus=0).remote()
    ray.get(actor.nothing.remote())
    busy = time.process_time()
    for _ in range(10):
        ray.get([actor.nothing.remote() for _ in range(50)])
    return (time.process_time() - busy) / 500


def measure_adding() -> float:
    """Seconds a byte of partial products that are added up."""
    total, part = np.zeros((2_000_000, 10)), np.ones((2_000_000, 10))  # no cache holds them

    def add() -> None:
        total[:] += part

    return pace(add) / part.nbytes


def measure_images(x: NDArray[np.uint8], tile: int) -> float:
    """Seconds a byte of float images for what the driver does with them before the first worker starts."""
    started = time.perf_counter()
    make_fingerprint(network("mlp-5"), x, tile=tile, dtype="float32", kinds=("ntk",), columns=None)
    floats = compute_images(x, tile, "float32")
    reference = ray.put(floats)
    seconds = time.perf_counter() - started
    del reference
    return seconds / floats.nbytes


def pace(call: Callable[[], Any], least: int = 5) -> float:
    """Median seconds of a call."""
    call()
    spent = []
    for _ in range(least):
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def measure_constants(
    arguments: argparse.Namespace, calibration: Calibration, x: NDArray[np.uint8], folder: Path
) -> Given:
    """Everything that a build on this machine is predicted from."""
    alone, together = kernel_in_processes(arguments, 1), kernel_in_processes(arguments, CORES)
    nbytes = 4 * arguments.tile**2
    large, large_core = measure_writing(folder, arguments.tile, 3)
    small, small_core = measure_writing(folder, 32, 8)
    write, share = max(large - small, 0.0), min(1.0, (large_core + small_core) / max(large + small, 1e-9))
    values = {
        "start": 0.0,  # Ray runs already
        "worker_start": calibration.start,
        "stop": calibration.stop,
        "image_byte": measure_images(x, arguments.tile),
        "pair": alone,
        "crowding": max(1.0, together / alone),
        "write_byte": write / nbytes,
        "write_tile": small,
        "write_share": share,
        "dispatch": measure_dispatch(folder),
        "call": measure_call(),
        "add_byte": measure_adding(),
    }
    return {name: (value, HERE) for name, value in values.items()}


def build(x: NDArray[np.uint8], store: Path, tile: int, actors: int) -> dict[str, Any]:
    """One build: elapsed seconds of all of it, and from the first worker to the last tile."""
    ready: list[float] = []
    tiles: list[float] = []
    seconds: list[tuple[float, float]] = []

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "worker_ready":
            ready.append(time.perf_counter())

    def on_progress(done: int, total: int, receipt: Any) -> None:
        if receipt is not None:
            tiles.append(time.perf_counter())
            seconds.append((receipt.compute_seconds, receipt.write_seconds))

    load, started = os.getloadavg()[0], time.perf_counter()
    build_gram(network("mlp-5"), x, store=store, tile=tile, workers=actors, on_event=on_event, on_progress=on_progress)
    return {
        "seconds": time.perf_counter() - started,
        "tile_seconds": tiles[-1] - ready[0],
        "workers": len(ready),
        "compute_seconds": sum(s for s, _ in seconds),
        "write_seconds": sum(s for _, s in seconds),
        "load": [load, os.getloadavg()[0]],
    }


def check_builds(
    arguments: argparse.Namespace, x: NDArray[np.uint8], constants: Constants, edge_limit: int, folder: Path
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
        stage = simulate_build(grid, 4, 4 * x.size, BuildActors(actors, 1, CORES), constants, edge_limit)
        rows[str(actors)] = {"oversubscribed": actors > CORES, **compared(stage, found)}
        print_row(f"build, {actors} actor(s){', oversubscribed' if actors > CORES else ''}", rows[str(actors)])
    return rows


def compared(stage: StageSeconds, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Prediction and medians."""
    whole = {"seconds": stage.seconds, "tile_seconds": stage.seconds - stage.parts[START] - stage.parts[IMAGES]}
    measured = {key: statistics.median(run[key] for run in found) for key in whole}
    return {
        "bottleneck": stage.bottleneck,
        "parts": stage.parts,
        "predicted": whole,
        "measured": measured,
        "ratio": {key: whole[key] / measured[key] for key in whole},
        "runs": found,
    }


def check_pass(folder: Path, config: RunConfig, constants: Constants) -> dict[str, Any]:
    """One pass of the tiled operator over the store that was built, from the page cache."""
    store = GramStore.open(next(folder.glob("*-*.zarr")))
    operator = TiledOperator(store, threads=CORES)
    v = np.random.default_rng(0).standard_normal((store.n, 10))
    load = os.getloadavg()[0]
    measured = pace(lambda: operator.matmat(v), 3)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gram, data = {"tile": store.tile}, {"n_train": store.n}
    sized = config.model_copy(
        update={
            "gram": config.gram.model_copy(update=gram),
            "data": config.data.model_copy(update=data),
            "solver": config.solver.model_copy(update={"operator": "threads"}),
        }
    )
    here = Cluster(1, CORES, 0, memory)
    stage = matrix_pass(operator_plan(sized, here), store.grid, here, 10, constants)
    found = {
        "n": store.n,
        "predicted": {"seconds": stage.seconds},
        "measured": {"seconds": measured},
        "ratio": {"seconds": stage.seconds / measured},
        "bottleneck": stage.bottleneck,
        "load": [load, os.getloadavg()[0]],
    }
    print_row("one pass, 10 vectors", found)
    return found


def check_training(
    x: NDArray[np.uint8], y: NDArray[np.int64], folder: Path, calibration: Calibration
) -> dict[str, Any]:
    """Train by the default recipe on few images, for few steps, as `advntk run` does."""
    np.savez(folder / "images.npz", x=x[:4400], y=y[:4400])
    settings = ["data.n_train=4000", "data.n_val=128", "data.n_test=128"]
    settings += ["train.steps=4", "train.batch=256", "evaluation.times=[1e-3, 1e-2]", "evaluation.curve=128"]
    settings += [f"data.name={json.dumps(str(folder / 'images.npz'))}", "gram.workers=1"]
    config = load_config("cifar10-mlp5-full", settings)
    load = os.getloadavg()[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    _, predicted = predict(config, Cluster(1, CORES, 0, memory), calibration)
    results = run(config, folder / "run", display=Display(quiet=True)).results
    whole, measured = predicted.seconds["train"], results["seconds"]["train"]
    found = {
        "n": 4000,
        "settings": settings[:-2],
        "predicted": {"seconds": whole},
        "measured": {"seconds": measured},
        "ratio": {"seconds": whole / measured},
        "bottleneck": predicted.bottlenecks["train"],
        "parts": predicted.parts["train"],
        "load": [load, os.getloadavg()[0]],
    }
    print_row("training, 4 steps", found)
    return found


def print_row(name: str, row: Mapping[str, Any]) -> None:
    """Predicted, measured and their ratio."""
    for key, ratio in row["ratio"].items():
        missed = "" if abs(ratio - 1) <= WITHIN else f"  more than {100 * WITHIN:.0f}% away"
        print(
            f"{name:34}{key:13}{row['predicted'][key]:8.2f} s predicted{row['measured'][key]:8.2f} s measured"
            f"{ratio:6.2f}  ({row['bottleneck']}){missed}",
            flush=True,
        )


def gpu_pairs(share: float) -> dict[str, tuple[float, str]]:
    """Seconds a pair of mlp-5 on the GPU, and where they come from."""
    path = RESULTS / "kernels-gpu.json"
    if path.exists():
        found = json.loads(path.read_text())
        pairs = found["networks"]["mlp-5"]["nanoseconds_a_pair"]
        source = f"measured on {found['environment']['device']}: results/kernels-gpu.json"
        return {what: (1e-9 * pairs[f"xla {what}"], source) for what in OPERATIONS}
    source = f"assumed: operations a pair at {100 * share:.0f}% of an H200's float32 peak; no GPU was measured"
    return {what: (count / (share * PEAK), source) for what, count in OPERATIONS.items()}


def gpu_constants(
    arguments: argparse.Namespace, calibration: Calibration, measured: Given
) -> tuple[Calibration, Constants, dict[str, Any]]:
    """Constants of the table: cores, writing and driver as here, kernels of a GPU, and assumed links."""
    pairs = gpu_pairs(arguments.gpu_share)
    copy_byte = 1 / (1e9 * arguments.device_copy)
    gpu = on_gpu(calibration, 128, pairs["value"][0], pairs["gradient"][0], copy_byte)
    rates = {
        "node_byte": arguments.node_link,
        "store_byte": arguments.shared_store,
        "network_byte": arguments.network,
    }
    given = links("assumed", rates)
    given["read_byte"] = given["node_byte"]
    given["copy_byte"] = copy_byte, f"assumed: {arguments.device_copy:g} GB/s from a GPU to its actor"
    kept = ("image_byte", "write_byte", "write_tile", "dispatch", "call", "add_byte", "stop")
    given |= {name: measured[name] for name in kept}
    if arguments.recorded:
        given["start"] = measured["start"]
    else:
        seconds = arguments.ray_start + measured["worker_start"][0]
        given["start"] = seconds, f"assumed: {arguments.ray_start:g} s of Ray; {HERE}: an actor"
    given |= {
        "pair": pairs["value"],
        "entry": measured.get("entry", (calibration.entry * calibration.cores, HERE)),
    }
    constants = Constants.of(gpu, remote=True, given=given)
    others = {
        "gradient of a pair": {"seconds": pairs["gradient"][0], "source": pairs["gradient"][1]},
        "passes of solves": {"source": f"measured on this machine: pilot of {calibration.pilot.whole.n} images"},
    }
    return gpu, constants, others


def table(
    arguments: argparse.Namespace, config: RunConfig, calibration: Calibration, constants: Constants
) -> list[dict[str, Any]]:
    """Predict, print, and return the rows."""
    nodes = GpuNodes(memory_a_gpu=arguments.memory_a_gpu * 2**30, cpus_a_gpu=arguments.cpus_a_gpu)
    rows = []
    print(f"{'n':>9}{'GPUs':>5}{'tile':>6}{'store':>11}  {'Gram':>8} {'bounded by':29}{'pass':>8} {'bounded by':31}"
          f"{'train':>8} {'passes':>6} bounded by")  # fmt: skip
    for p in scaling_table(config, SIZES, GPUS, calibration, constants, nodes):
        by = p.bottlenecks
        print(
            f"{p.n:>9,}{p.gpus:>5}{p.tile:>6}{size(p.storage_bytes):>11}  {duration(p.gram_seconds):>8} {by['gram']:29}"
            f"{duration(p.pass_seconds):>8} {by['pass']:31}{duration(p.train_seconds):>8} {p.passes:6.0f} {by['train']}"
            f"{' *' if p.notes else ''}",
            flush=True,
        )
        rows.append(p.as_dict())
    return rows


def measure_all(
    arguments: argparse.Namespace, config: RunConfig, x: NDArray[np.uint8], y: NDArray[np.int64]
) -> tuple[Calibration, Given, Constants, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Constants of this machine, and builds, a pass and training against what they predict."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ray.init(
            num_cpus=max(arguments.actors),
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=max(200 * 2**20, 10 * x.size),
        )
        calibration = calibrate(config, say=lambda line: print(line, flush=True))
        measured = measure_constants(arguments, calibration, x, folder)
        constants = Constants.of(calibration, remote=False, given=measured)
        for key, row in constants.as_dict().items():
            print(f"  {key:14}{row['seconds']:.4g}")
        builds = check_builds(arguments, x, constants, calibration.edge_limit, folder)
        one_pass = check_pass(folder, config, constants)
        training = check_training(x, y, folder, calibration)
        ray.shutdown()
    return calibration, measured, constants, builds, one_pass, training


def main() -> None:
    """Measure, predict, check, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder with CIFAR-10")
    parser.add_argument("--n", type=int, default=24_000, help="images of the builds")
    parser.add_argument("--tile", type=int, default=2048)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeat", type=int, default=1, help="times that each build is made")
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json")
    parser.add_argument("--recorded", action="store_true", help="take what was recorded instead of building")
    parser.add_argument("--part", choices=("kernel",), help=argparse.SUPPRESS)
    assumed = parser.add_argument_group("assumed, for the table")
    assumed.add_argument("--gpu-share", type=float, default=0.4, help="of the peak, where no GPU was measured")
    assumed.add_argument("--device-copy", type=float, default=10.0, help="GB/s from a GPU to its actor")
    assumed.add_argument("--node-link", type=float, default=2.0, help="GB/s between a node and the store")
    assumed.add_argument("--shared-store", type=float, default=20.0, help="GB/s of the store")
    assumed.add_argument("--network", type=float, default=2.5, help="GB/s into or out of a node")
    assumed.add_argument("--ray-start", type=float, default=10.0, help="seconds")
    assumed.add_argument("--cpus-a-gpu", type=int, default=16)
    assumed.add_argument("--memory-a-gpu", type=int, default=128, help="GiB")
    arguments = parser.parse_args()
    if arguments.part:
        print(measure_kernel(arguments))
        return
    began, load = time.perf_counter(), [os.getloadavg()[0]]
    os.environ["PYTHONPATH"] = import_path()
    settings = ["gram.workers=1", "solver.ridge=0.0"]
    settings += [f"data.path={json.dumps(arguments.images)}"] if arguments.images else []
    config = load_config("cifar10-mlp5-full", settings)
    x, y = stand_in_images(arguments.n), np.arange(arguments.n) % 10
    if arguments.images:
        data = load_dataset("cifar10", arguments.images)
        x, y = data.x[: arguments.n], data.y[: arguments.n]
    one_pass: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    if arguments.recorded:
        figures, measured = recorded()
        calibration = calibrate(config, build=figures, say=lambda line: print(line, flush=True))
        measured |= {name: ASSUMED[name] for name in ("image_byte", "dispatch", "call", "add_byte")}
        measured |= {"stop": (0.0, "in start"), "worker_start": (0.0, "in start")}
        constants = Constants.of(calibration, remote=False, given=measured)
        builds = check_recorded(constants)
    else:
        calibration, measured, constants, builds, one_pass, training = measure_all(arguments, config, x, y)
    load.append(os.getloadavg()[0])
    largest = config.model_copy(update={"data": config.data.model_copy(update={"n_train": max(SIZES)})})
    calibration = dataclasses.replace(calibration, pilot=pilot_of(largest, config, calibration))
    gpu, gpu_given, others = gpu_constants(arguments, calibration, measured)
    result = {
        "environment": environment() | {"cores": CORES, "load": load},
        "network": "mlp-5",
        "images": "CIFAR-10" if arguments.images else "random, of CIFAR-10's shape",
        "recorded": arguments.recorded,
        "n": len(x),
        "tile": arguments.tile,
        "repeat": arguments.repeat,
        "within": WITHIN,
        "constants": constants.as_dict(),
        "builds": builds,
        "pass": one_pass,
        "training": training,
        "table_constants": gpu_given.as_dict() | others,
        "table_nodes": {"gpus": 8, "cpus_a_gpu": arguments.cpus_a_gpu, "memory_a_gpu_gib": arguments.memory_a_gpu},
        "table": table(arguments, config.model_copy(update={"gram": config.gram.model_copy(update={"workers": None})}),
                       gpu, gpu_given),
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def pilot_of(largest: RunConfig, config: RunConfig, calibration: Calibration) -> Any:
    """A pilot at the strengths of the largest run of the table, on the images of the one that was calibrated."""
    subject = subject_of(config, calibration.pilot.whole.n)
    net = network(config.network.name)
    theta = net.compiled.matrix(subject.x, subject.x, "ntk", symmetric=True)
    return run_pilot(largest, subject, theta, net.ntk(subject.x_val, subject.x))


if __name__ == "__main__":
    main()
