"""Small JSON files of a run directory, as the schema has them, for tests of those who read them."""

from __future__ import annotations

from typing import Any

from advntk_dist.evaluation.statistics import wilson_interval
from advntk_dist.results.schema import MethodRow

DESCRIBED: dict[str, Any] = {"dataset": "digits", "network": "mlp-3", "n_train": 60, "n_val": 20, "n_test": 40}


def method(robust: float = 0.4, n: int = 40, **more: Any) -> dict[str, Any]:
    """The row of a method with this robust accuracy."""
    return {
        "clean": 0.9,
        "clean_interval": [0.77, 0.96],
        "robust": robust,
        "robust_interval": [max(0.0, robust - 0.1), robust + 0.1],
        "n_test": n,
        "max_perturbation": 0.2,
    } | more


def accuracies(clean: float, robust: float, n: int) -> MethodRow:
    """Accuracies of n images with their 95% intervals."""
    return MethodRow(
        clean=clean, clean_interval=wilson_interval(clean, n), robust=robust,
        robust_interval=wilson_interval(robust, n), n_test=n, max_perturbation=0.2,
    )  # fmt: skip


def under_one_attack(
    attack: dict[str, Any], methods: dict[str, dict[str, Any]], pairs: list[dict[str, Any]]
) -> dict[str, Any]:
    """What results.json says of methods where the run's own attack is the only one."""
    n = next(iter(methods.values()))["n_test"]
    rows = {name: {key: row[key] for key in MethodRow.model_fields} for name, row in methods.items()}
    worst = {"images": n, "sets": ["own"], "attacks": [attack], "methods": rows, "paired": pairs, "alone": []}
    over = {name: over_radius(row["robust"], attack["radius"], n) for name, row in methods.items()}
    radius = {"images": n, "radius": attack["radius"], "norm": "linf", "methods": over}
    return {"attack": attack, "methods": methods, "paired": pairs, "worst_case": worst, "radius": radius}


def over_radius(robust: float, radius: float, n: int) -> dict[str, Any]:
    """The row of a method over the radius."""
    row = {"robust_interval": list(wilson_interval(robust, n)), "n_test": n}
    checked = [{"radius": radius, "expected": robust, "robust": robust} | row]
    curve = {"radii": [0.0, radius, 2 * radius], "robust": [1.0, robust, 0.0]}
    nonlinearity = {"median": 0.01, "high": 0.02}
    return {"checked": checked, "nonlinearity": nonlinearity, "curves": dict.fromkeys(("linf", "l2", "l1"), curve)}


def run_results(**methods: dict[str, Any]) -> dict[str, Any]:
    """results.json of a run with these methods."""
    return DESCRIBED | {
        **under_one_attack({"name": "pgd", "radius": 0.2}, methods, []),
        "tier": {"asked": "none", "worth": False},
        "curve": {"times": [0.1], "validation": [method()], "test": [method()]},
        "gram": {},
        "solver": {},
        "seconds": {"gram": 1.5},
        "peak_bytes": {"driver": 1},
        "environment": {},
    }


def tier(attacks: list[str], methods: dict[str, float], **more: Any) -> dict[str, Any]:
    """A tier whose attacks each leave what is left of a method in the end; the first one leaves 0.05 more."""
    rows = {
        name: method(
            robust,
            attacks=[
                {
                    "name": attack,
                    "attacked": 36,
                    "broken": 1,
                    "robust": robust + 0.05 * (i == 0 and len(attacks) > 1),
                    "robust_interval": [0.0, 1.0],
                    "max_perturbation": 0.2,
                }
                for i, attack in enumerate(attacks)
            ],
            seconds=1.5,
            predicted={"workers": 1},
        )
        for name, robust in methods.items()
    }
    return (
        DESCRIBED
        | {
            "tier": "standard",
            "images": 40,
            "attack": {"radius": 0.2, "norm": "linf", "seed": 0},
            "attacks": [{"called": attack, "name": attack} for attack in attacks],
            "methods": rows,
            "paired": [],
            "environment": {},
        }
        | more
    )


def check(*rows: tuple[str, bool, str, str], **more: Any) -> dict[str, Any]:
    """check.json with these checks: name, whether it passed, what was found, what was asked for."""
    accuracy = {"robust": 0.28, "robust_interval": [0.2, 0.35], "n_test": 200}
    return (
        DESCRIBED
        | {
            "method": "adv_ntk",
            "images": 200,
            "attack": {"name": "pgd"},
            "passed": all(row[1] for row in rows),
            "checks": [
                dict(zip(("name", "passed", "value", "criterion"), row, strict=True), details={}) for row in rows
            ],
            "clean": 0.9,
            "own_attack": accuracy,
            "white_box": accuracy,
            "environment": {},
        }
        | more
    )
