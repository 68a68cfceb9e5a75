"""Adv-NTK's recipes and the best uniform time under one tier, on the same test images; paired differences.

    python tests/benchmarks/recipes.py --images PATH --out FOLDER --seeds 3

Two runs a seed, on the same images: ``cross-fit`` with PGD on margins in training and in the choice of the uniform
time, and the paper's recipe as the paper has it (PGD on the squared error). The uniform time is chosen on validation
images; the test images are attacked once everything is chosen. Killed and started again, it goes on.
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
from advntk_dist.environment import environment
from advntk_dist.evaluation.accuracy import Accuracy
from advntk_dist.pipeline.evaluate import evaluate_run_tier
from advntk_dist.pipeline.run import run
from advntk_dist.progress import Display

TIER = "standard"
TIMES = [5e-4, 1e-3, 2e-3, 3e-3, 4e-3, 6e-3, 1e-2]
RESULTS = Path(__file__).parent / "results"
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
    settings += ["attack.loss=margin", f"evaluation.times={TIMES}", "train.recipe=cross-fit"]
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
    for recipe, methods in (("cross-fit", ("early_stopped", "adv_ntk")), ("paper", ("adv_ntk",))):
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


def difference(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> dict[str, Any]:
    """Mean of a - b over the same images, with a 95% bootstrap interval."""
    d = a.astype(float) - b.astype(float)
    if not d.any():
        return {"mean": 0.0, "interval": [0.0, 0.0]}
    ends = bootstrap((d,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(0), batch=200)
    return {"mean": float(d.mean()), "interval": [float(v) for v in ends.confidence_interval]}


def summary(seeds: list[dict[str, Any]], found: list[dict[str, Outcomes]]) -> dict[str, Any]:
    """All seeds' images together: accuracies with Wilson intervals, and cross-fit against both others, paired."""
    pooled = {n: {w: np.concatenate([f[n][w] for f in found]) for w in ("clean", "robust")} for n in found[0]}
    methods: dict[str, dict[str, Any]] = {}
    for name, parts in pooled.items():
        methods[name] = {}
        for what, right in parts.items():
            accuracy = Accuracy.of(right)
            methods[name] |= {what: accuracy.value, f"{what}_interval": [accuracy.low, accuracy.high]}
    paired = {
        f"cross-fit minus {other}": {w: difference(pooled["cross-fit"][w], pooled[other][w]) for w in pooled[other]}
        for other in ("best uniform time", "paper")
    }
    return {
        "images": sum(len(f["paper"]["clean"]) for f in found),
        "methods": methods,
        "paired": paired,
        "by_seed": seeds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="CIFAR-10, as data.path takes it")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--network", default="mlp-5")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n-train", type=int, default=10_000)
    parser.add_argument("--n-val", type=int, default=2_000)
    parser.add_argument("--n-test", type=int, default=2_000)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    display, seeds, found = Display(), [], []
    for seed in range(arguments.seeds):
        notes, outcome = one_seed(seed, arguments, display)
        seeds.append(notes)
        found.append(outcome)
        result = {
            "tier": TIER, "network": arguments.network, "n_train": arguments.n_train, "n_val": arguments.n_val,
            "n_test": arguments.n_test, **summary(seeds, found), "environment": environment(),
        }  # fmt: skip
        path = arguments.json or RESULTS / f"recipes-{arguments.network}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps({k: result[k] for k in ("images", "methods", "paired")}, indent=1), flush=True)


if __name__ == "__main__":
    main()
