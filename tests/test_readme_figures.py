"""Every measured figure of README.md and of tests/benchmarks/README.md is what the JSON files beside the latter say.

Each function below renders the pieces of one paragraph or table from the JSON, rounded as the document rounds; each
piece must stand there, line breaks aside. A number that no piece covers is a setting, or fails the last test.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advntk_dist.config import load_config
from advntk_dist.data import Dataset, split

TESTS = Path(__file__).resolve().parent
README, BENCHMARKS = "README.md", "tests/benchmarks/README.md"
TEXTS = {name: (TESTS.parent / name).read_text("utf-8").replace("\n", " ") for name in (README, BENCHMARKS)}
WORDS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]

SETTINGS = {
    README: ("Python 3.11 to 3.13", "[arXiv 2310.06112]", "clean, 95% interval | robust, 95% interval"),
    BENCHMARKS: ("Intervals are 95%. No GPU", "On digits at radius 0.2"),
}
"""Pieces whose numbers are chosen, not measured: versions, levels of intervals, radii, times, rates."""

NOT_PROSE = re.compile(r"```.*?```|`[^`]*`|\]\([^)]*\)")
"""Code blocks, code within a line, and the targets of links."""
NUMBER = re.compile(r"\d[\d,]*\.\d+%?|\d+%")
"""A number with a decimal point or a percent sign."""


@functools.cache
def stored(name: str) -> Any:
    """The JSON of a benchmark."""
    return json.loads((TESTS / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))


def points(share: float, sign: str = "") -> str:
    """A share in hundredths with one decimal; with sign "+", positive ones have theirs too."""
    return f"{100 * share:{sign}.1f}".replace("-", "−")


def span(interval: Sequence[float], factor: float = 1.0, middle: float = 0.0) -> str:
    """An interval, lengthened by a factor on both sides of its middle."""
    return " to ".join(points(middle + factor * (end - middle)) for end in interval)


def with_std(row: dict[str, Any]) -> str:
    """Clean and robust accuracy of a method over seeds; they are stored in percent."""
    return " / ".join(f"{row[what]['mean']:.1f} ± {row[what]['std']:.1f}" for what in ("clean", "robust"))


def needs() -> Iterator[str]:
    """What the two commands of README take, and what the main job shows."""
    found, run, suite = stored("needs"), stored("digits")["runs"]["default"], stored("suite")
    attacks = WORDS[len(run["worst_case"]["attacks"])]
    disk = {key: f"{n / 1e9:.1f} GB" for key, n in found["disk_bytes"].items()}
    cores = [WORDS[stored(name)["environment"]["cpu_count"]] for name in ("digits", "suite")]
    yield f"downloads packages ({disk['environment']} on disk) and then takes {run['wall_seconds']:.0f} s on {cores[0]}"
    yield f"on {cores[0]} cores and {found['peak_bytes']['run'] / 1e9:.1f} GB of memory"
    yield f"{WORDS[len(run['methods'])]} methods on clean images and under {attacks} attacks"
    first = suite["runs"][0]
    assert (first["compiled_programs"], first["exit"], first["busy_beside"]) == ("none", 0, 0)
    yield f"({first['wall_minutes']:.0f} minutes on {cores[1]} cores, {disk['environment_dev']} on disk for packages)"


def shown_job() -> Iterator[str]:
    job = stored("full-cifar10")
    test, times, cores = job["curve"]["test"], job["curve"]["times"], WORDS[job["environment"]["cpu_count"]]
    assert job["starts"] - 1 == len(job["killed_during"]) == 2
    yield f"in {job['total_seconds'] / 60:.0f} minutes on {cores} cores, killed twice on the way: MLP-5"
    sizes = f"{job['n_train']:,} training, {job['n_val']:,} validation and {job['n_test']:,} test images"
    yield f"MLP-5, {job['gram']['dtype']}, {sizes}"
    yield f"PGD-{job['attack']['steps']} on {job['attack']['loss']}s (curve: {test[0]['n_test']:,} test images)"
    assert [row["clean"] for row in test] == sorted(row["clean"] for row in test)
    most = max(range(len(test)), key=lambda i: test[i]["robust"])
    yield f"once training goes on past t = {times[most]} or so (robust overfitting), while clean accuracy still rises"


def shown_table() -> Iterator[str]:
    job, paper = stored("full-cifar10")["methods"], stored("full-cifar10-paper")["methods"]
    assert all(paper[name] == job[name] for name in ("ntk", "early_stopped"))
    rows = {
        "NTK (t = infinity)": job["ntk"],
        f"NTK stopped early (t = {job['early_stopped']['t']}, chosen on validation)": job["early_stopped"],
        "Adv-NTK": job["adv_ntk"],
        "Adv-NTK, the paper's recipe with that attack": paper["adv_ntk"],
    }
    for name, row in rows.items():
        cells = [f"{points(row[what])}% ({span(row[f'{what}_interval'])})" for what in ("clean", "robust")]
        yield f"| {name} | {cells[0]} | {cells[1]} |"


def shown_difference() -> Iterator[str]:
    (row,) = [
        p for p in stored("full-cifar10")["paired"] if (p["method"], p["against"]) == ("adv_ntk", "early_stopped")
    ]
    yield f"keeps {points(row['robust'])} points ({span(row['robust_interval'])}) more under attack"
    low, high = row["clean_interval"]
    yield f"clean accuracy {points(-row['clean'])} points below ({points(-low)} below to {points(high)} above)"


def machine() -> Iterator[str]:
    """The one machine of all files that say where they were measured."""
    keys, folder = ("cpu_count", "machine", "python", "jax"), TESTS / "benchmarks" / "results"
    found = {
        tuple(e[key] for key in keys) for path in folder.glob("*.json") if (e := stored(path.stem).get("environment"))
    }
    ((cores, kind, python, jax),) = found
    yield f"a virtual machine with {WORDS[cores]} {kind} cores, Python {python} and JAX {jax}."


def stronger_attacks() -> Iterator[str]:
    """What they take, in quarters of a point."""
    seeds, quarters = stored("recipes-mlp-5")["by_seed"], {2: "half", 3: "three quarters of a point"}
    taken = [
        sum(seed[name]["robust_under_own_attack"] - seed[name]["robust"] for seed in seeds) / len(seeds)
        for name in ("cross-fit", "best uniform time")
    ]
    yield "take another {} to {} from both".format(*(quarters[round(400 * t)] for t in taken))


def plan() -> Iterator[str]:
    """Runs over plans: the JSON has plans over runs."""
    cases = stored("plan")["cases"]
    runs = [run for case in cases.values() for run in case]
    took = [run["total"]["measured"] / run["total"]["predicted"] for run in runs]
    assert {round(run["plan_seconds"] / 30) for run in runs} == {1}
    yield "measures the machine for half a minute and then predicts"
    yield f"predicts: {WORDS[len(runs)]} runs of {WORDS[len(cases)]} configurations (digits; CIFAR-10 with"
    mlp, cnn = (cases[name][0]["settings"] for name in ("cifar10-mlp3-4000", "cifar10-cnn3-600"))
    n_train = [int(s.split("=")[1]) for settings in (mlp, cnn) for s in settings if s.startswith("data.n_train=")]
    yield "with MLP-3 on {:,} images, and with CNN-3 on {:,})".format(*n_train)
    yield f"took {min(took):.2f} to {max(took):.2f} times what it had said, on two quiet cores"


def speed() -> Iterator[str]:
    """Of kernels and of attacks."""
    for network, row in stored("kernels-cpu")["networks"].items():
        ratio = row["ratio"]
        yield f"{ratio['value']['wall']:.1f} and {ratio['gradient']['wall']:.1f} times for `{network}`"
    mlp, cnn = (stored("attack-cpu")["networks"][name] for name in ("mlp-5", "cnn-3"))
    (fast, gain), (slow, more) = (
        (row["image_steps_a_second"]["after"]["wall"], row["gain"]["neural-tangents"]["wall"]) for row in (mlp, cnn)
    )
    yield f"A PGD attack on {mlp['n']:,} training images makes {round(fast, -1):,.0f} image-steps a second with `mlp-5`"
    yield f"with `mlp-5` ({gain:.1f} times neural-tangents) and {slow:.1f} with `cnn-3` ({more:.1f} times;"


def kept_speed() -> Iterator[str]:
    """Ratios to an earlier commit, and how many pairs of runs each is the median of."""
    report = stored("before")
    rows = {what: row for what, row in report.items() if what not in ("environment", "commits")}
    (pairs,) = {len(row["ratios"]) for row in rows.values()}
    yield f"commit {report['commits']['other']}, median of {WORDS[pairs]} pairs"
    for what, row in rows.items():
        yield f"| {what} | {row['ratio']:.2f} |"


def whole_run() -> Iterator[str]:
    whole = stored("end-to-end")
    (size,) = [s.partition("=")[2] for s in whole["runs"]["auto"]["settings"] if s.startswith("data.n_train=")]
    network = load_config(whole["preset"]).network.name
    yield f"A whole run of `{network}` on {int(size):,} training images takes {whole['runs']['auto']['total']:.0f} s"
    yield f"against {whole['runs']['neural-tangents']['total']:.0f} s ({whole['gain']['total']:.1f} times faster;"


def faster_job() -> Iterator[str]:
    """A whole run now and at an earlier commit, in one run of the benchmark."""
    report = stored("job")
    then, now, gain = report["runs"]["other"], report["runs"]["this"], report["gain"]
    yield f"takes {now['total']:.0f} s in place of {then['total']:.0f} s at commit {report['commits']['other']}"
    yield f"({gain['total']:.1f} times faster; selection {gain['select']:.1f} times, training {gain['train']:.1f} times"
    seconds = f"{now['stages']['evaluate']:.0f} s in place of {then['stages']['evaluate']:.0f} s"
    yield f"evaluation, which draws the curve over the radius besides, {seconds}"
    memory = [f"{run['largest_process_bytes'] / 1e9:.1f} GB" for run in (now, then)]
    yield f"largest process has {memory[0]} in place of {memory[1]}"


def linearised_attack() -> Iterator[str]:
    """How it compares with PGD at every radius, and with a whole tier at some."""
    report = stored("strength")
    rows = report["rows"]
    pgd = [100 * (row["pgd-20"]["robust"] - row["linear"]["robust"]) for row in rows]
    sizes = f"{report['n_train']:,} training and {report['images']:,} test images"
    yield f"({report['network'].upper()}, {sizes}, three methods"
    yield f"at {len(rows) // 3} radii"
    yield f"PGD-20 on margins leaves {min(pgd):.1f} to {max(pgd):.1f} points more images robust"
    tier = [row for row in rows if "standard" in row]
    more = [100 * (row["linear"]["robust"] - row["standard"]["robust"]) for row in tier]
    yield f"all of tier `standard` takes at most {max(more):.1f} points from what the linearised attack leaves"
    alone = max(row["broken_by_pgd_alone"] for row in rows)
    yield f"PGD-20 breaks at most {alone} image{'' if alone == 1 else 's'} alone"


def recipe_table() -> Iterator[str]:
    """Accuracies of a seed are counts of 2,000 images, half of them midway between two tenths: these are rounded up."""
    recipes = stored("recipes-mlp-5")
    sizes = f"{recipes['n_train']:,} training and {recipes['n_val']:,} validation images, radius 8/255"
    images = f"{recipes['n_test']:,} test images for each of {WORDS[len(recipes['by_seed'])]} seeds"
    yield f"MLP-5, {sizes}, tier `{recipes['tier']}` on {images}"
    titles = {"best uniform time": "best uniform time (chosen on validation)"}
    for name, row in recipes["methods"].items():
        seeds = [", ".join(points(s[name][what] + 1e-9) for s in recipes["by_seed"]) for what in ("clean", "robust")]
        title = titles.get(name, f"Adv-NTK, recipe `{name}`")
        yield f"| {title} | {points(row['clean'])}% | {points(row['robust'])}% | {seeds[0]} | {seeds[1]} |"


def drawn_again() -> tuple[int, float]:
    """Test images that the recipes' seeds drew after the first time, and how much longer that can make an interval."""
    recipes, n = stored("recipes-mlp-5"), 60_000
    images, labels = np.zeros((n, 1, 1, 1), np.uint8), np.zeros(n, np.int64)
    cifar10 = Dataset("cifar10", images, labels, ("any",), test_start=50_000)
    sizes = {size: recipes[size] for size in ("n_train", "n_val", "n_test")}
    rows = np.concatenate([split(cifar10, **sizes, seed=seed["seed"]).test for seed in recipes["by_seed"]])
    _, draws = np.unique(rows, return_counts=True)
    return len(rows) - len(draws), round(float(np.sqrt((draws**2).sum() / len(rows))), 2)


def recipe_differences() -> Iterator[str]:
    recipes, (again, factor) = stored("recipes-mlp-5"), drawn_again()
    seeds, others = recipes["by_seed"], ("best uniform time", "paper")
    images = len(seeds) * recipes["n_test"]
    drew = f"the seeds drew {again:,} of their {images:,} test images a second or third time"
    yield f"lengthened by a factor of {factor}, the most that it can matter that {drew}"
    found: dict[str, str] = {}
    for other in others:
        for what, row in recipes["paired"][f"cross-fit minus {other}"].items():
            found[f"{other}, {what}"] = points(row["mean"])
            found[f"{other}, {what}, interval"] = span(row["interval"], factor, row["mean"])
    robust, more = (f"{found[f'{name}, robust']} points ({found[f'{name}, robust, interval']}) more" for name in others)
    assert all(seed["cross-fit"]["robust"] > seed[other]["robust"] for seed in seeds for other in others)
    yield f"`cross-fit` leaves {robust} robust accuracy than the best uniform time and {more} than the paper's recipe"
    uniform, ends = found["best uniform time, clean"], found["best uniform time, clean, interval"]
    yield f"more for every seed, at clean accuracy {uniform} points ({ends}) above the former"
    below = sum(seed["cross-fit"]["clean"] < seed["paper"]["clean"] for seed in seeds)
    paper, ends = found["paper, clean"], found["paper, clean, interval"]
    yield f"as high as the latter's ({paper} above, {ends}; below it for {WORDS[below]} seeds of {WORDS[len(seeds)]})"


def check_and_autoattack() -> Iterator[str]:
    check, auto = stored("check-mlp-5"), stored("autoattack")
    assert check["passed"]
    yield f"passes its {WORDS[len(check['checks'])]} checks on the run of seed 0 ({check['images']} test images,"
    ours, theirs, n = auto["ours"], auto["autoattack_standard"], auto["images"]
    left = f"{n * auto['clean']:.0f} right when clean, {n * theirs['robust']:.0f} robust"
    assert auto["broken_by_ours_alone"] == auto["broken_by_autoattack_alone"] == 0
    yield f"on {n} test images of the same run ({left}), breaks the same images as tier `{auto['tier']}` does, in"
    yield f"does, in {theirs['seconds'] / ours['seconds']:.1f} times the time"


def ablation() -> Iterator[str]:
    """What changes of the default recipe do, the best uniform time and the paper's recipe among them."""
    lab, large = stored("ablation-mlp-5"), stored("ablation-mlp-5-n10000")
    changes = {row["name"]: row["minus_default"] for row in lab["variants"] if "minus_default" in row}
    uniform, paper = changes.pop("best uniform time"), changes["paper"]
    gain, other = (
        f"{points(-row['robust'])}{unit} ({span([-end for end in reversed(row['robust_interval'])])}; "
        f"{WORDS[len(row['seeds'])]} seeds)"
        for row, unit in ((uniform, " points"), (paper, ""))
    )
    yield f"With {lab['n_train']:,} training images, and {lab['n_held']:,} attacked ones a seed that are held out"
    yield f"the robust gain is {gain} over the best uniform time and {other} over the paper's recipe, whose clean"
    yield f"whose clean accuracy is {points(paper['clean'])} points ({span(paper['clean_interval'])}) higher"
    assert len(changes) == lab["compared"] < 2 * sum(len(row["seeds"]) == 1 for row in changes.values())
    raising = {name: row["robust_p"] for name, row in changes.items() if row["robust"] > 0}
    few = WORDS[sum(p < 0.05 / len(changes) for p in raising.values())]
    yield f"Of {len(changes)} changes, most on one seed, {few} raises robust accuracy with p below 0.05 /"
    yield f"p below 0.05 / {lab['compared']}, and several trade"
    signed = {name: [points(row[what], "+") for what in ("clean", "robust")] for name, row in changes.items()}
    count = f"{WORDS[len(changes['squared error']['seeds'])]} seeds"
    yield "the squared error {} for {} ".format(*signed["squared error"]) + f"({count}), no weight on clean images"
    yield "no weight on clean images {} for {}.".format(*signed["clean weight 0"])
    closest = min(raising, key=lambda name: raising[name])
    assert closest == "folds and validation in turn"
    row, (same,) = changes[closest], [v["minus_default"] for v in large["variants"] if v["name"] == closest]
    ends = f"{span(row['robust_interval'])}; {WORDS[len(row['seeds'])]} seeds, p = {row['robust_p']:.3f}"
    yield f"Closest came steps on validation images in turn with folds: {signed[closest][1]} robust ({ends}), but"
    yield f"but {points(same['robust'], '+')} ({span(same['robust_interval'])}) with {large['n_train']:,} training"
    yield f"with {large['n_train']:,} training images, where {large['n_val']:,} validation images are overfitted"
    yield f"has all, and names {WORDS[len(lab['not_measured'])]} changes that are not measured"


def reproduction() -> Iterator[str]:
    mlp, others = stored("reproduction-mlp")["rows"], (("reproduction-mlp-r4", " it is"), ("reproduction-cnn", ":"))
    assert all(row["pgd"]["seeds"] == [0, 1, 2] and row["radius"] == 8.0 for row in mlp)
    sizes = f"{mlp[0]['n_train']:,} training and {mlp[0]['n_val']:,} validation images"
    yield f"the paper's settings: {sizes}, radius 8/255; {mlp[0]['n_test']:,} test images"
    methods = ("ntk", "early-stopped", "adv-ntk")
    for network in dict.fromkeys(row["network"] for row in mlp):
        rows = {row["method"]: row for row in mlp if row["network"] == network}
        cells = [*(with_std(rows[method]["pgd"]) for method in methods), with_std(rows["adv-ntk"]["pgd-reference"])]
        yield f"| {network.upper()} | {' | '.join(cells)} |"
    for name, verb in others:
        rows = {row["method"]: row for row in stored(name)["rows"]}
        ntk, stopped, ours = (with_std(rows[method]["pgd"]) for method in methods)
        yield f"`results/{name}.json`){verb} NTK {ntk}, stopped early {stopped}, Adv-NTK {ours}."
    row = stored("reproduction-cnn")["rows"][0]
    yield f"CNN-3 at {row['n_train']} training, {row['n_val']} validation and {row['n_test']} test images"


def scale_gram() -> Iterator[str]:
    gram = stored("gram-mlp-5")
    full, over, checked = gram["full"], gram["full_over_ideal"], gram["checked"]
    yield f"All {full['n']:,} training images of CIFAR-10, MLP-5, float32, {WORDS[full['workers']]} CPU cores"
    yield f"the Gram matrix, {full['distinct_pairs'] / 1e9:.2f}e9 pairs in {full['tiles']} tiles, took"
    start = full["seconds"] - full["tile_seconds"]
    yield f"tiles, took {full['seconds']:.0f} s, {start:.0f} of them to start Ray"
    images = full["n"] * 32 * 32 * 3 * 4  # float32
    yield f"{full['store_bytes'] / 1e9:.1f} GB on disk; {full['peak_worker_bytes'] / 1e9:.1f} GB of memory at most in"
    planned = f"(planned: {full['planned']['worker_bytes'] / 1e9:.1f})"
    yield f"in a worker, {images / 1e9:.1f} of them images that the workers share {planned}"
    busy, alone = over["tiles, against the kernel with all cores busy"], over["tiles"]
    yield f"{busy:.2f} times the bare kernel's own time with both cores busy ({alone:.2f} times its time on one core"
    batch = f"{gram['faster_than_neural_tangents_batch']['tiles']:.1f} times as fast as `neural_tangents.batch`"
    yield f"{batch} on {gram['small']['n']:,} images. Checking all bytes takes"
    difference = f"{checked['largest_relative_difference']:.0e}".replace("e-0", "e-")
    yield f"Checking all bytes takes {checked['verify_seconds']:.0f} s. The largest difference from float64 in a sample"
    yield f"in a sample of tiles is {difference} of the largest entry"


def scale_job() -> Iterator[str]:
    job = stored("full-cifar10")
    peak, methods, uniform = job["peak_bytes"], job["methods"], job["solver"]["solves"]["uniform"]
    minutes = {stage: seconds / 60 for stage, seconds in job["seconds"].items()}
    yield f"with {job['n_train']:,} images in the matrix"
    yield f"Gram matrix {job['seconds']['gram']:.0f} s, uniform dynamics and t = infinity {minutes['solve']:.1f} min ("
    yield f"({uniform['passes']:.0f} passes), early stopping on validation images {minutes['select']:.1f} min, "
    yield f"min, {methods['adv_ntk']['steps']} Adv-NTK steps {minutes['train']:.0f} min, {WORDS[len(methods)]} methods"
    yield f"methods on {job['n_test']:,} test images and the curve {minutes['evaluate']:.1f} min."
    yield f"took at most {peak['driver'] / 1e9:.1f} GB of memory, a worker {peak['worker'] / 1e9:.1f} GB"
    yield f"[Training times that Adv-NTK gave {job['n_train']:,} images]"


def scale_solver() -> Iterator[str]:
    solver = stored("solver")["results"]
    ratio, update, sizes = solver["pass"]["ratio"], solver["update"], solver["rival"]["sizes"]
    yield f"n = {solver['pass']['n']:,}, two cores): a product with 10 vectors takes"
    yield f"takes {ratio['from disk']:.2f} times the reading of the matrix from disk"
    square, thin = (ratio[f"cached, {shape} product, wall"] for shape in ("square", "thin"))
    yield f"from the page cache {square:.1f} times the same arithmetic as a large matrix product, "
    yield f"large matrix product, {thin:.2f} times BLAS's own product of that shape"
    yield f"takes {update['passes']} passes ({update['seconds']['wall']:.0f} s)"
    first, last = sizes[0]["n"], sizes[-1]["n"]
    yield f"At n = {last:,} loss and gradient are {sizes[-1]['ratio']['wall']:.0f} times as fast as a dense matrix"
    ours, dense = (solver["rival"]["exponent"][who]["wall"] for who in ("ours", "dense"))
    yield f"time grows as n^{ours:.1f} against n^{dense:.1f} between {first:,} and {last:,}"


def solver_parts() -> Iterator[str]:
    solver = stored("solver")["results"]
    limit, held, trained = solver["limit"], solver["held"]["ratio"], solver["tolerance"]
    ours, theirs = limit["products"]["one basis"], limit["products"]["conjugate gradients"]
    yield f"infinity take {ours['passes']} passes with {ours['columns']:,} vectors (n = {limit['n']:,}, "
    yield f"{limit['dtype']},"
    yield f"tolerance {limit['tolerance']:.0e}); a basis and then preconditioned conjugate gradients took "
    yield f"took {theirs['passes']} with {theirs['columns']:,}, and agree to {limit['relative_difference']:.1e}."
    assert solver["held"]["n"] == limit["n"]
    yield f"a product with 10 vectors takes {held['10']['cpu']:.1f} times the processor time of its arithmetic, "
    yield f"arithmetic, {held['20']['cpu']:.1f} times with 20; with one vector {held['1']['cpu']:.0f} times that of"
    rows: dict[float, list[Any]] = {}
    for row in trained["trainings"]:
        rows.setdefault(row["tolerance"], []).append(row)
    exact, chosen, loose = (rows[tolerance] for tolerance in (1e-6, 1e-3, 1e-2))
    passes, cosines = ([fold(row[key] for row in part) for part in (exact, chosen, loose)]
                       for fold, key in ((sum, "passes"), (min, "cosine")))  # fmt: skip
    robust = [[row["robust"] for row in part] for part in (exact, chosen, loose)]
    assert robust[0] == robust[1]
    yield f"(n = {trained['n']:,}, MLP-5, {len(exact)} seeds) with solves to {chosen[0]['tolerance']:.0e} the robust"
    yield f"the robust accuracy on {trained['held_out']:,} held-out images is that with {exact[0]['tolerance']:.0e} for"
    yield f"for every seed ({', '.join(points(r) for r in robust[0])}%), log varpi moves the same way (cosine at least "
    yield f"(cosine at least {cosines[1]:.4f}), and {passes[1]} passes do instead of {passes[0]}."
    most = max(abs(a - b) for a, b in zip(robust[0], robust[2], strict=True))
    yield f"With {loose[0]['tolerance']:.0e} accuracy moves by up to {points(most)} points "
    yield f"points (cosine {cosines[2]:.3f}) for {passes[2]} passes."


def finite_width() -> Iterator[str]:
    finite, small = stored("finite-width-cifar10-small"), stored("finite-width-digits")
    methods, attack, sizes = finite["methods"], finite["attack"], finite["training"]
    yield f"({finite['network'].upper()}, width {sizes['width']}, {finite['n_train']:,} images, radius 8/255, PGD-"
    yield f"PGD-{attack['steps']} on the squared error, {finite['n_test']:,} test images; `advntk finite-width"
    names = ("finite_at_best", "finite_at", "adv_ntk", "early_stopped")
    most, last, ours, stopped = (f"{points(methods[name]['robust'])}%" for name in names)
    steps = [methods[name]["steps"][0] for name in names[:2]]
    yield f"{most} at step {steps[0]:,} and {last} at step {steps[1]:,}, beside {ours} of Adv-NTK and {stopped} of the"
    for run, words, end in ((finite, "falls as width to the power", ""), (small, "on digits", "; `results/finite-")):
        slope = run["flow"]["slopes"]["gap_test"]
        yield f"{words} {slope['slope']:.2f} (95% interval {slope['low']:.2f} to {slope['high']:.2f}{end or ')'}"


def digits() -> Iterator[str]:
    """Accuracies under a run's own attack and in the worst case, each beside the command that gives them."""
    runs, methods = stored("digits")["runs"], ("adv_ntk", "early_stopped")

    def left(run: str, worst: bool) -> str:
        rows = runs[run]["worst_case"]["methods"] if worst else runs[run]["methods"]
        return " and ".join(f"{points(rows[name]['robust'])}%" for name in methods)

    flattered, default, paper = runs["squared-error"], runs["default"], runs["paper"]
    n, few = default["methods"]["adv_ntk"]["n_test"], default["worst_case"]["images"]
    preset = load_config("digits")
    yield f"({preset.network.name.upper()}, {preset.data.n_train:,} training images; `results/digits.json`), PGD-"
    yield f"`results/digits.json`), PGD-{flattered['attack']['steps']} and the linearised attack:"
    tier = f"tier `{flattered['tier']['name']}`"
    first, second = (f"{points(flattered['methods'][name]['robust'])}%" for name in methods)
    yield f"`{flattered['command']}` leaves {first} of {n} test images robust for Adv-NTK and {second} for"
    yield f"in the worst case over that and {tier}, {left('squared-error', True)} of the first {few}."
    yield f"`{default['command']}` leaves {left('default', False)} under the linearised attack, its own, "
    yield f"{left('default', True)} in the worst case"
    theirs = f"{points(paper['worst_case']['methods']['adv_ntk']['robust'])}%"
    yield f"The paper's recipe leaves {theirs} in the worst case (`{paper['command']}`)"


FIGURES: dict[str, tuple[Callable[[], Iterator[str]], ...]] = {
    README: (needs, shown_job, shown_table, shown_difference),
    BENCHMARKS: (
        machine, plan, speed, kept_speed, whole_run, faster_job, linearised_attack, recipe_table, recipe_differences,
        stronger_attacks,
        check_and_autoattack, ablation, reproduction, scale_gram, scale_job, scale_solver, solver_parts,
        finite_width, digits,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "figures"), [(name, figures) for name in FIGURES for figures in FIGURES[name]])
def test_figures_are_those_of_the_json(name: str, figures: Callable[[], Iterator[str]]) -> None:
    assert not [piece for piece in figures() if piece not in TEXTS[name]]


@pytest.mark.parametrize("name", TEXTS)
def test_no_figure_is_without_a_source(name: str) -> None:
    text, rendered = TEXTS[name], [piece for figures in FIGURES[name] for piece in figures()]
    assert not [piece for piece in SETTINGS[name] if piece not in text]
    patterns = [NOT_PROSE, *(re.compile(re.escape(piece)) for piece in (*rendered, *SETTINGS[name]))]
    covered = [found.span() for pattern in patterns for found in pattern.finditer(text)]
    assert not [
        text[max(0, number.start() - 40) : number.end() + 40]
        for number in NUMBER.finditer(text)
        if not any(start <= number.start() and number.end() <= end for start, end in covered)
    ]


def test_every_json_file_is_named_in_a_document() -> None:
    texts = TEXTS[BENCHMARKS] + (TESTS.parent / "cluster" / "README.md").read_text("utf-8")
    assert not [path.name for path in (TESTS / "benchmarks" / "results").glob("*.json") if path.name not in texts]
