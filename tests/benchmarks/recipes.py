"""Adv-NTK's recipes and the best uniform time under one tier, on the same test images; paired differences.

    python tests/benchmarks/recipes.py --images PATH --out FOLDER --seeds 3

Two runs a seed, on the same images: ``cross-fit`` with PGD on margins in training and in the choice of the uniform
time, and the paper's recipe as the paper has it (PGD on the squared error). The uniform time is chosen on validation
images; the test images are attacked once everything is chosen. Killed and started again, it goes on;
``--without-paper`` leaves the paper's for later.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from advntk_dist.config import RunConfig, load_config
from advntk_dist.data import load_dataset, split
from advntk_dist.environment import environment
from advntk_dist.pipeline.run import run
from advntk_dist.pipeline.tier import evaluate_run_tier
from advntk_dist.progress import Display
from bench import RESULTS, options, write

TIER = "standard"
TIMES = [5e-4, 1e-3, 2e-3, 3e-3, 4e-3, 6e-3, 1e-2]
METHODS = {"cross-fit": ("early_stopped", "adv_ntk"), "paper": ("adv_ntk",)}
Outcomes = dict[str, NDArray[np.bool_]]


def configuration(recipe: str, seed: int, arguments: argparse.Namespace) -> RunConfig:
    """The paper's preset with the sizes and the seed asked for; cross-fit with its own attack and numbers."""
    settings = [
        f"data.path={arguments.images}", f"data.n_train={arguments.n_train}", f"data.n_val={arguments.n_val}",
        f"data.n_test={arguments.n_test}", f"data.seed={seed}", f"train.seed={seed}", f"attack.seed={seed}",
        f"evaluation.curve={min(100, arguments.n_test)}",
    ]  # fmt: skip
    if recipe == "paper":  # its uniform time is not looked at
        settings += ["evaluation.times=[0.003]"]
        return load_config(f"paper/cifar10-{arguments.network}-r8", settings)
    settings += ["attack.loss=margin", "evaluation.tier=none", f"evaluation.times={TIMES}", "train.recipe=cross-fit"]
    config = load_config(f"paper/cifar10-{arguments.network}-r8", settings)
    usual = type(config.train)(recipe="cross-fit", seed=seed)  # not the paper's steps and rate
    return config.model_copy(update={"train": usual})


def outcomes(folder: Path, method: str) -> Outcomes:
    """Which test images are right, clean and after all attacks, from a tier's committed rows."""
    import zarr

    (listed,) = (folder / "evaluation").glob(f"{TIER}_*.json")
    group = zarr.open_group(folder / "evaluation.zarr" / listed.stem, mode="r")
    last = json.loads(listed.read_text())["attacks"][-1]["called"]
    rows = {"clean": group[f"{method}_clean"][:], "robust": group[f"{method}_{last}"][:]}  # type: ignore[index]
    return {what: np.asarray(values)[:, 0] > 0 for what, values in rows.items()}


def one_seed(seed: int, arguments: argparse.Namespace, display: Display) -> tuple[dict[str, Any], dict[str, Outcomes]]:
    """Both runs and their evaluations."""
    found: dict[str, Outcomes] = {}
    notes: dict[str, Any] = {"seed": seed}
    for recipe in arguments.recipes:
        methods = METHODS[recipe]
        folder = arguments.out / f"{recipe}-{seed}"
        results = run(configuration(recipe, seed, arguments), folder, display=display).results
        path, tier = evaluate_run_tier(folder, TIER, methods=methods, display=display)
        display.say(f"{path}")
        if recipe == "cross-fit":
            notes |= {k: results["methods"]["early_stopped"][k] for k in ("t", "validation_robust")}
        for method in methods:
            name = "best uniform time" if method == "early_stopped" else recipe
            found[name] = outcomes(folder, method)
            own = results["methods"][method]
            notes[name] = {k: tier["methods"][method][k] for k in ("clean", "robust", "max_perturbation")}
            notes[name] |= {"robust_under_own_attack": own["robust"], "attacks": tier["methods"][method]["attacks"]}
        notes[f"{recipe} seconds"] = results["seconds"]
    return notes, found


def drawn(config: RunConfig) -> NDArray[np.int64]:
    """Rows (n_test,) of the dataset that a configuration's test images are."""
    d = config.data
    dataset = load_dataset(d.name, d.path)
    return split(dataset, n_train=d.n_train, n_val=d.n_val, n_test=d.n_test, seed=d.seed).test


def resampled(values: NDArray[np.float64], rows: NDArray[np.int64]) -> dict[str, Any]:
    """Mean of values over draws with a 95% interval: percentile bootstrap over the distinct images behind them."""
    _, place = np.unique(rows, return_inverse=True)
    sums, draws = np.bincount(place, values), np.bincount(place)

    def mean(total: Any, count: Any, axis: int) -> Any:
        return total.sum(axis=axis) / count.sum(axis=axis)

    rng = np.random.default_rng(0)
    found = bootstrap((sums, draws), mean, paired=True, method="percentile", rng=rng, batch=200)
    return {"mean": float(values.mean()), "interval": [float(v) for v in found.confidence_interval]}


def summary(
    seeds: list[dict[str, Any]], found: list[dict[str, Outcomes]], rows: list[NDArray[np.int64]]
) -> dict[str, Any]:
    """All seeds' images together, and cross-fit against both others image by image, over all seeds and in each."""
    every, whats = np.concatenate(rows), ("clean", "robust")
    methods: dict[str, dict[str, Any]] = {}
    for name in found[0]:
        methods[name] = {}
        for what in whats:
            right = resampled(np.concatenate([f[name][what] for f in found]).astype(float), every)
            methods[name] |= {what: right["mean"], f"{what}_interval": right["interval"]}
    paired: dict[str, dict[str, Any]] = {}
    for other in [name for name in found[0] if name != "cross-fit"]:
        paired[f"cross-fit minus {other}"] = compared = {}
        for what in whats:
            won = [f["cross-fit"][what].astype(float) - f[other][what] for f in found]
            compared[what] = resampled(np.concatenate(won), every) | {"by_seed": [float(w.mean()) for w in won]}
    return {
        "draws": len(every),
        "images": len(np.unique(every)),
        "methods": methods,
        "paired": paired,
        "by_seed": seeds,
        "outcomes": [{n: {w: bits(v) for w, v in o.items()} for n, o in f.items()} for f in found],
    }


def bits(right: NDArray[np.bool_]) -> str:
    """One bit an image, the first in the highest, in hexadecimal digits."""
    return np.packbits(right).tobytes().hex()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--images", required=True, help="CIFAR-10, as data.path takes it")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--network", default="mlp-5")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--without-paper", action="store_const", dest="recipes", const=["cross-fit"], default=list(METHODS)
    )
    parser.add_argument("--n-train", type=int, default=10_000)
    parser.add_argument("--n-val", type=int, default=2_000)
    parser.add_argument("--n-test", type=int, default=2_000)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    display, seeds, found, rows = Display(), [], [], []
    for seed in range(arguments.seeds):
        notes, outcome = one_seed(seed, arguments, display)
        config = configuration("cross-fit", seed, arguments)
        seeds.append(notes)
        found.append(outcome)
        rows.append(drawn(config))
        result = {
            "tier": TIER, "network": arguments.network, "n_train": arguments.n_train, "n_val": arguments.n_val,
            "n_test": arguments.n_test, "radius": config.attack.radius, "times": TIMES,
            "attack_of_training": {r: configuration(r, seed, arguments).attack.model_dump(mode="json")
                                   for r in arguments.recipes},
            **summary(seeds, found, rows), "environment": environment(),
        }  # fmt: skip
        path = arguments.json or RESULTS / f"recipes-{arguments.network}.json"
        write(path, result)
        print(json.dumps({k: result[k] for k in ("draws", "images", "methods", "paired")}, indent=1), flush=True)


if __name__ == "__main__":
    main()
