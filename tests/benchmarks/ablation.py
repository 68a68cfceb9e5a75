"""Adv-NTK's recipe with one thing changed at a time, against the recipe itself and the best uniform time; JSON, table.

    python tests/benchmarks/ablation.py --images PATH --out FOLDER [--seeds 0 1] [--variants NAME ...]
    python tests/benchmarks/ablation.py --table

CIFAR-10 (JPEG), radius 8/255. A seed divides the publisher's TRAINING set into training, validation and held-out
images; all variants of the seed share them, and the publisher's test set is not looked at. Held-out images are attacked
by PGD-20 on margins from one random start, and under some variants by APGD (dlr, 50 steps) besides. Each outcome is
committed, and so is each step of training: killed and started again, it goes on. FOLDER may hold seeds and variants of
earlier calls; the JSON is of all of them.

A difference is paired: over the images of all seeds that both have. Its 95% interval is of images, not of training
sets, whatever the number of variants compared; p (exact McNemar test) is to be held against 0.05 / variants.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ablation_lab import Lab, Right, Settings
from ablation_variants import DEFAULT, UNIFORM, VARIANTS, Variant
from advntk_dist.evaluation.statistics import Accuracy, paired_interval
from advntk_dist.storage import guarded_group
from advntk_dist.storage.durable import write_durable
from bench import RESULTS, machine, options, write

KINDS = ("clean", "robust", "harder")
Outcomes = dict[str, dict[int, dict[str, Any]]]
"""Of a variant, of a seed: which images are right, and the notes."""


def outcome_file(out: Path, variant: Variant, seed: int) -> Path:
    """Where one outcome is committed."""
    return out / f"seed-{seed}" / f"{variant.name.replace('/', 'by').replace(' ', '-')}.npz"


def work(variant: Variant, lab: Lab, file: Path) -> None:
    """Train, judge, commit."""
    begun = time.perf_counter()
    made = variant.make(lab)
    between = time.perf_counter()
    right = lab.judge(made.predictor, harder=variant.harder)
    seconds = {"training": between - begun, "judging": time.perf_counter() - between}
    content = io.BytesIO()
    np.savez_compressed(content, notes=json.dumps(made.notes | {"seconds": seconds}), **right)  # type: ignore[arg-type]
    write_durable(file, content.getvalue())
    means = ", ".join(f"{kind} {values.mean():.4f}" for kind, values in right.items())
    print(f"seed {lab.seed}, {variant.name}: {means} {seconds}", flush=True)


def outcomes(out: Path) -> Outcomes:
    """All that is committed."""
    found: Outcomes = {}
    for variant in VARIANTS:
        for seed in sorted(int(f.name.removeprefix("seed-")) for f in out.glob("seed-*")):
            file = outcome_file(out, variant, seed)
            if file.exists():
                with np.load(file) as stored:
                    parts = {key: stored[key] for key in stored.files}
                found.setdefault(variant.name, {})[seed] = parts | {"notes": json.loads(str(parts["notes"]))}
    return found


def pooled(runs: dict[int, dict[str, Any]], seeds: Sequence[int], kind: str) -> Right:
    """The images of some seeds, one after the other."""
    return np.concatenate([runs[seed][kind] for seed in seeds])


def accuracies(runs: dict[int, dict[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """With Wilson's intervals."""
    row: dict[str, Any] = {}
    for kind in KINDS:
        if all(kind in runs[seed] for seed in seeds):
            a = Accuracy.of(pooled(runs, seeds, kind))
            row |= {kind: a.value, f"{kind}_interval": [a.low, a.high]}
    return row


def difference(new: dict[int, dict[str, Any]], old: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """new - old on the images of the seeds that both have."""
    from scipy.stats import binomtest

    seeds = sorted(set(new) & set(old))
    row: dict[str, Any] = {"seeds": seeds}
    for kind in KINDS:
        if seeds and all(kind in runs[seed] for runs in (new, old) for seed in seeds):
            a, b = pooled(new, seeds, kind), pooled(old, seeds, kind)
            won, lost = int((a & ~b).sum()), int((b & ~a).sum())
            row |= {kind: (won - lost) / len(a), f"{kind}_interval": list(paired_interval(won, lost, len(a)))}
            row[f"{kind}_p"] = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return row


def report(found: Outcomes, settings: Settings) -> dict[str, Any]:
    """The JSON."""
    rows = []
    for variant in VARIANTS:
        if (runs := found.get(variant.name)) is None:
            continue
        row: dict[str, Any] = {"group": variant.group, "name": variant.name, "seeds": sorted(runs)}
        row |= accuracies(runs, row["seeds"])
        for key, other in (("minus_default", DEFAULT), ("minus_uniform", UNIFORM)):
            if other in found and other != variant.name:
                row[key] = difference(runs, found[other])
        row["by_seed"] = {
            seed: {kind: float(run[kind].mean()) for kind in KINDS if kind in run} | run["notes"]
            for seed, run in runs.items()
        }
        rows.append(row)
    return {
        "data": "CIFAR-10 (JPEG); held-out images are of the publisher's training set",
        "radius": "8/255",
        "attacks": {"robust": "PGD-20 on margins", "harder": "the same, then APGD on dlr, 50 steps"},
        **asdict(settings),
        "compared": sum(row["name"] not in (DEFAULT, UNIFORM) for row in rows),
        "note": "intervals are 95% each, of images, without regard to how many variants were compared; "
        "p is of an exact McNemar test: hold it against 0.05 / compared",
        "not_measured": [variant.name for variant in VARIANTS if variant.name not in found],
        "variants": rows,
        "environment": machine(),
    }


def write_report(path: Path, out: Path, settings: Settings) -> None:
    """The JSON of all that is committed."""
    write(path, rounded(report(outcomes(out), settings)))


def rounded(value: Any) -> Any:
    """Numbers to four digits behind the point, or four significant ones below 0.01: enough for counts of thousands."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if abs(value) < 0.01 else round(value, 4)
    return value


def table(result: dict[str, Any]) -> str:
    """One line a variant, in percent and points."""
    lines = [
        f"{result['network']}, {result['n_train']} training images, {result['n_held']} held-out images a seed; "
        f"{result['compared']} variants compared, * where p < 0.05 / {result['compared']}",
        f"{'':3}{'':42}{'seeds':>6}{'clean':>7}{'PGD-20':>7}{'APGD':>6}   {'minus cross-fit: clean':24}"
        f"{'robust':24}minus uniform: robust",
    ]

    def gap(row: dict[str, Any], key: str, kind: str) -> str:
        d = row.get(key, {})
        if kind not in d:
            return ""
        low, high = (100 * v for v in d[f"{kind}_interval"])
        star = "*" if d[f"{kind}_p"] < 0.05 / result["compared"] else ""
        return f"{100 * d[kind]:+.1f} ({low:+.1f} to {high:+.1f}){star}"

    for row in result["variants"]:
        harder = f"{100 * row['harder']:.1f}" if "harder" in row else ""
        lines.append(
            f"{row['group']:3}{row['name']:42}{len(row['seeds']):6}{100 * row['clean']:7.1f}{100 * row['robust']:7.1f}"
            f"{harder:>6}   {gap(row, 'minus_default', 'clean'):24}{gap(row, 'minus_default', 'robust'):24}"
            f"{gap(row, 'minus_uniform', 'robust')}"
        )
    if result["not_measured"]:
        lines.append(f"not measured: {'; '.join(result['not_measured'])}")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, write the JSON after each, print the table."""
    parser = options(__doc__)
    parser.add_argument("--images", help="CIFAR-10, as data.path takes it")
    parser.add_argument("--out", type=Path, help="folder of outcomes and checkpoints")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--variants", nargs="+", choices=[v.name for v in VARIANTS], help="by default all")
    parser.add_argument("--network", default="mlp-5")
    parser.add_argument("--n-train", type=int, default=4_000)
    parser.add_argument("--n-val", type=int, default=2_000)
    parser.add_argument("--n-held", type=int, default=4_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", action="store_true", help="only print the table of the JSON")
    arguments = parser.parse_args()
    path = arguments.json or RESULTS / f"ablation-{arguments.network}.json"
    if not arguments.table:
        if arguments.images is None or arguments.out is None:
            parser.error("--images and --out are needed to measure; --table alone prints what was measured")
        settings = Settings(arguments.network, arguments.n_train, arguments.n_val, arguments.n_held)
        guarded_group(arguments.out / "settings", asdict(settings))
        labs: dict[int, Lab] = {}
        for variant in VARIANTS:
            for seed in arguments.seeds:
                file = outcome_file(arguments.out, variant, seed)
                if variant.name not in (arguments.variants or [variant.name]) or file.exists():
                    continue
                if seed not in labs:
                    file.parent.mkdir(exist_ok=True)
                    labs[seed] = Lab(arguments.images, settings, seed, file.parent / "training")
                work(variant, labs[seed], file)
                write_report(path, arguments.out, settings)
        write_report(path, arguments.out, settings)
    print(table(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
