"""`advntk evaluate`, `check`, `dynamics` and `report`: commands on a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from advntk_dist.attacks import registry
from advntk_dist.cli.options import (
    ADDRESS,
    WORKERS,
    Answer,
    PlaceParameter,
    answers,
    display,
    methods_lines,
    results_lines,
)
from advntk_dist.storage.paths import Location

if TYPE_CHECKING:
    from advntk_dist.results.schema import CheckResults, RadiusResults, TierResults

_ATTACK = "Name of an attack below, or package.module:attack for one of your own."


class _WithAttacks(click.Command):
    """A command whose help ends with the attacks and the tiers that there are."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - of click
        """Write both lists, each name with what it is."""
        attacks = [(spec.name, spec.description) for spec in registry.ATTACKS.values()]
        tiers = [(name, tier.says) for name, tier in registry.TIERS.items()]
        tiers.append((registry.AUTOATTACK.name, registry.AUTOATTACK.says))
        for title, rows in (("Attacks", attacks), ("Tiers", tiers)):
            with formatter.section(title):
                formatter.write_dl(rows)


@click.command(cls=_WithAttacks, short_help="Attack the methods of a finished run again.")
@click.argument("folder", type=PlaceParameter(), metavar="RUN")
@click.option("--attack", "name", default=registry.PLAIN.name, show_default=True, help=_ATTACK)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="A key of [attack], such as radius or steps."
)
@click.option(
    "--tier",
    type=click.Choice(registry.TIER_NAMES),
    help="A standard sequence of attacks instead.",
)
@click.option("--curve", is_flag=True, help="Robust accuracy over the radius, as the run has found it, instead.")
@click.option("--images", type=click.IntRange(min=1), help="With --tier: the first so many test images. [default: all]")
@click.option("--method", "methods", multiple=True, help="With --tier: this method alone; may be given again.")
@WORKERS
@ADDRESS
@answers
def evaluate(
    folder: Location,
    name: str,
    overrides: Sequence[str],
    tier: str | None,
    curve: bool,
    images: int | None,
    methods: Sequence[str],
    workers: int | None,
    address: str | None,
) -> Answer:
    """Attack the methods of a finished run again, with another attack, another strength, or a tier of attacks.

    Examples: advntk evaluate runs/digits --attack pgd --set steps=50 --set radius=0.1

    advntk evaluate runs/digits --tier standard --images 1000

    advntk evaluate runs/digits --curve
    """
    from advntk_dist.results.schema import AttackedAgain, RadiusResults, TierResults

    if curve:
        other = (tier, images, workers, address) != (None,) * 4
        if overrides or methods or other or name != registry.PLAIN.name:
            raise click.UsageError("--curve prints what the run has found: leave out the other options")
        from advntk_dist.pipeline.evaluate import radius_curves_of

        path, results = radius_curves_of(folder)
        lines = _curve_lines(RadiusResults.model_validate(results))
        return Answer(results | {"written": str(path)}, chain(lines, [f"from {path}"]))
    if tier is None:
        from advntk_dist.pipeline.evaluate import evaluate_again

        if images is not None or methods:
            raise click.UsageError("--images and --method belong to --tier")
        path, results = evaluate_again(folder, name, overrides, address=address, workers=workers, display=display())
    else:
        if overrides or name != registry.PLAIN.name:
            raise click.UsageError("--tier takes radius, norm and seed from the run; leave out --attack and --set")
        from advntk_dist.pipeline.tier import evaluate_run_tier

        path, results = evaluate_run_tier(
            folder, tier, images=images, methods=methods, address=address, workers=workers, display=display()
        )
    lines = (
        results_lines(AttackedAgain.model_validate(results))
        if tier is None
        else _tier_lines(TierResults.model_validate(results))
    )
    return Answer(results | {"written": str(path)}, chain(lines, [_where(path, folder)]))


def _curve_lines(results: RadiusResults) -> Iterator[str]:
    yield f"robust accuracy over the {results.norm} radius on {results.images} test images"
    yield "radius".ljust(12) + "".join(f"{name:>15}{'linearised':>12}" for name in results.methods)
    for rows in zip(*(method.checked for method in results.methods.values()), strict=True):
        yield f"{rows[0].radius:<12.4g}" + "".join(f"{row.robust:>15.1%}{row.expected:>12.1%}" for row in rows)
    yield "linearised: by the margin linearised at the clean image; beside it, under the attack that starts from there"
    for name, method in results.methods.items():
        if (off := method.nonlinearity) is not None:
            yield (
                f"{name}: at its worst point within {results.radius:.4g} the linearised margin misses the true one by "
                f"{off.median:.1%} of the median size of margins there (median of images), {off.high:.1%} (95th "
                "percentile)"
            )


def _tier_lines(results: TierResults) -> Iterator[str]:
    attack, attacks = results.attack, [a["called"] for a in results.attacks]
    largest = max(row.max_perturbation for row in results.methods.values())
    yield (
        f"{results.dataset}, {results.network}, {results.n_train} training images; tier {results.tier} on "
        f"{results.images} test images, {attack['norm']} radius {attack['radius']:.4g}, seed {attack['seed']}, "
        f"largest perturbation {largest:.4g}"
    )
    yield from methods_lines(results.methods, results.paired)
    yield "robust after".ljust(15) + "".join(f"{a:>20}" for a in attacks)
    for name, row in results.methods.items():
        robust = "".join(f"{100 * a.robust:>19.1f}%" for a in row.attacks)
        yield f"{name:<15}{robust}"
    for name, row in results.methods.items():
        for part, flags in (row.flags or {}).items():
            yield from (f"{name}, {part} says: {flag}" for flag in flags)
    if results.note is not None:
        yield f"note: {results.note}"


@click.command(short_help="Write a run's report again, or compare runs.")
@click.argument("folders", type=PlaceParameter(), metavar="RUN...", nargs=-1, required=True)
@click.option("--compare", is_flag=True, help="Write one page that sets two or more runs side by side.")
@click.option(
    "--out",
    type=PlaceParameter(dir_okay=False),
    help="With --compare: the page to write.  [default: comparison.html]",
)
@answers
def report(folders: Sequence[Location], compare: bool, out: Location | None) -> Answer:
    """Write the report of a finished run again, or compare runs.

    Examples: advntk report runs/digits

    advntk report --compare runs/a runs/b --out comparison.html
    """
    if compare:
        from advntk_dist.pipeline.compare import compare_runs

        path = compare_runs(folders, out or Path("comparison.html"), display=display())
        return Answer({"comparison": str(path)}, [f"comparison: {path}"])
    if len(folders) > 1 or out is not None:
        raise click.UsageError("several runs and --out belong to --compare")
    from advntk_dist.pipeline.run import rebuild_report

    path = rebuild_report(folders[0], display=display())
    return Answer({"report": str(path)}, [f"report: {path}"])


@click.command(short_help="Examine a finished run for gradient masking.")
@click.argument("folder", type=PlaceParameter(), metavar="RUN")
@click.option(
    "--images", type=click.IntRange(min=1), default=200, show_default=True, help="The first so many test images."
)
@click.option("--method", default="adv_ntk", show_default=True, help="adv_ntk, early_stopped or ntk.")
@answers
def check(folder: Location, images: int, method: str) -> Answer:
    """Examine a finished run for gradient masking; exit 0 if every check passes, 1 if one fails.

    Example: advntk check runs/digits --method early_stopped
    """
    from advntk_dist.pipeline.evaluate import check_run
    from advntk_dist.results.schema import CheckResults

    path, report = check_run(folder, images=images, method=method, display=display())
    lines = _check_lines(CheckResults.model_validate(report))
    return Answer(report, chain(lines, [_where(path, folder)]), 0 if report["passed"] else 1)


def _check_lines(report: CheckResults) -> Iterator[str]:
    yield f"{report.dataset}, {report.network}, {report.method}, {report.images} test images"
    for row in report.checks:
        yield f"{'pass' if row.passed else 'FAIL'}  {row.name}"
        yield f"      {row.value}"
        yield f"      wanted: {row.criterion}"
    if report.own_attack is not None:
        yield (
            f"{100 * report.own_attack.robust:.1f}% are robust under the run's own attack, "
            f"{100 * report.white_box.robust:.1f}% under the white-box attacks of these checks together"
        )


def _where(path: Location, run: Location) -> str:
    from advntk_dist.pipeline.directory import RunDirectory

    if RunDirectory.at(run).is_read_only:
        return f"read: {path}"
    return f"written: {path}; `advntk report {run}` brings the run's page up to date"


@click.command(short_help="Follow both kinds of training over all times.")
@click.argument("folder", type=PlaceParameter(), metavar="RUN")
@click.option("--strength", default=2.0, show_default=True, help="Theta_x eta S of the median sample.")
@click.option(
    "--rates",
    type=click.Choice(["adaptive", "uniform"]),
    default="adaptive",
    show_default=True,
    help="One rate eta a sample, by its distance to other classes, or one for all.",
)
@click.option("--schedule", default="constant", show_default=True, help="constant, ramp, cosine, step or cyclic.")
@click.option("--duration", type=float, help="Time a schedule takes. [default: the middle of the grid of times]")
@click.option("--pieces", default=4, show_default=True, help="Pieces of an interval for the exact answer.")
@click.option("--images", type=int, help="Test and validation images to attack. [default: as the run did]")
@answers
def dynamics(folder: Location, **values: Any) -> Answer:
    """Standard and adversarial training of a run's network over time: robust overfitting and where to stop.

    Times and attack are those of the run; it needs a finished Gram matrix. The same command resumes.

    Example: advntk dynamics runs/digits --schedule cosine
    """
    from advntk_dist.pipeline.dynamics import DynamicsRequest
    from advntk_dist.pipeline.dynamics import dynamics as compute

    path, results = compute(folder, DynamicsRequest(**values), display=display())
    lines = chain(_dynamics_lines(results), [f"written: {path}, dynamics.csv and dynamics.svg"])
    return Answer(results | {"written": str(path)}, lines)


def _dynamics_lines(results: dict[str, Any]) -> Iterator[str]:
    for name, flow in results["flows"].items():
        stop, solver = flow["early_stopping"], flow["solver"]
        bases = "one Krylov basis" if solver["bases"] == 1 else f"{solver['bases']} Krylov bases"
        yield (
            f"{name}: stop at t = {stop['t']:.4g} (effective {stop['effective_time']:.4g}, "
            f"chosen on {stop['chosen_on']}): "
            f"clean {100 * stop['test_clean']:.1f}%, robust {100 * stop['test_robust']:.1f}%; "
            f"{solver['passes']} passes over the matrix for {bases}"
        )
    end = results["flows"]["standard"]["rows"][-1]
    yield f"both end at the plain NTK: clean {100 * end['clean']:.1f}%, robust {100 * end['robust']:.1f}%"
    yield from results["remarks"]
    if results["exactness"] is not None:
        largest = results["exactness"]["largest_distance"]
        yield f"largest distance of the closed form to the exact flow: {largest:.2g}"
