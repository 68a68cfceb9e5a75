"""A run's report: its plots, one self-contained page, and the data of each plot, each file whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advntk_dist.report import image_plots, run_plots, sentences
from advntk_dist.report.attacks import attack_words, attacks_words, under_attack
from advntk_dist.report.dynamics import dynamics_plot, read_dynamics
from advntk_dist.report.inputs import DegenerationCurve, ReportInputs
from advntk_dist.report.judgements import MethodsTable, method_scores, methods_table, run_scores, title_of
from advntk_dist.report.page import facts, flatten, render, stages, write_page
from advntk_dist.report.style import Plot
from advntk_dist.results import schema, sealed
from advntk_dist.storage.paths import Location
from advntk_dist.text import as_percent

NAMES = ("methods", "degeneration", "radius", "training", "varpi", "extremes", "examples", "spectrum")
"""Plots of a run's report; that of `advntk dynamics` comes beside them."""


def write_report(inputs: ReportInputs, folder: Location) -> Location:
    """Write ``report.html`` and its plots into ``folder`` and return the page's path.

    The same inputs give the same bytes; a file that already holds them is not touched. The page is written last.

    Results of `advntk dynamics`, `advntk check` and `advntk evaluate --tier` that lie in the folder are shown.

    Raises
    ------
    RequestError
        If ``folder`` cannot be written to.
    StoreDamagedError
        If such results in it cannot be read.
    """
    plots = make_plots(inputs)
    dynamics = read_dynamics(folder)
    if dynamics is not None:
        plots["dynamics"] = dynamics_plot(dynamics)
    page = render_page(inputs, plots, read_check(folder, inputs.results), read_tiers(folder, inputs.results))
    return write_page(folder, page, plots)


def make_plots(inputs: ReportInputs) -> dict[str, Plot]:
    """Draw every plot of a run."""
    met, classes, curve = inputs.results.met, inputs.classes, DegenerationCurve.of(inputs.results)
    return {
        "methods": run_plots.methods_plot(method_scores(met.methods), under_attack(met)),
        "degeneration": run_plots.degeneration_plot(curve),
        "radius": run_plots.radius_plot(inputs.results.radius),
        "training": run_plots.training_plot(inputs.training),
        "varpi": run_plots.varpi_plot(inputs.varpi, inputs.y_train, classes),
        "extremes": image_plots.extremes_plot(inputs.extremes, inputs.varpi, classes),
        "examples": image_plots.examples_plot(inputs.examples, classes),
        "spectrum": run_plots.spectrum_plot(inputs.spectrum, curve.chosen_t),
    }


def render_page(
    inputs: ReportInputs,
    plots: Mapping[str, Plot],
    checked: schema.CheckResults | None = None,
    tiers: Sequence[schema.TierResults] = (),
) -> str:
    """Render the page as HTML text; everything from the inputs is escaped."""
    results, met = inputs.results, inputs.results.met
    return render(
        "report.html",
        summary=sentences.summarise(inputs),
        facts=[*facts(results), ("Under attack", under_attack(met)), *inputs.facts],
        table=methods_table(run_scores(results, met.methods), met.paired),
        under=under_attack(met),
        own_attack=attack_words(results.attack),
        own=methods_table(run_scores(results, results.methods), results.paired) if len(met.attacks) > 1 else None,
        more=_no_tier(results),
        plots=plots,
        checked=checked,
        passed=None if checked is None else check_words(checked),
        tiers=[(tier, _tier_attacks(tier), _tier_table(tier)) for tier in tiers],
        stages=stages(results.seconds),
        config=inputs.config_toml,
        environment=flatten(results.environment),
        numbers=flatten(sealed.plain(results)),
    )


def _no_tier(results: schema.RunResults) -> str:
    """What the page says in place of the tables of tiers, where there are none."""
    if len(results.met.attacks) > 1:
        return "No table of a tier lies beside this run; `advntk evaluate RUN --tier TIER` writes it again."
    return f"Not held to a tier of attacks yet: {sentences.tier_words(results)}"


def _tier_attacks(tier: schema.TierResults) -> list[str]:
    return attacks_words([{key: value for key, value in row.items() if key != "called"} for row in tier.attacks])


def _tier_table(tier: schema.TierResults) -> MethodsTable:
    """The methods under a tier, with what each attack in turn left of them."""
    left = {
        key: ", ".join(f"{attack.name} leaves {as_percent(attack.robust)}" for attack in row.attacks)
        for key, row in tier.methods.items()
    }
    return methods_table(method_scores(tier.methods, left), tier.paired)


def read_check(folder: Location, owner: schema.Described) -> schema.CheckResults | None:
    """What check.json says, of the run that ``owner`` is of; None where there is no such file.

    Raises
    ------
    StoreError
        If it was changed since it was written, or is of another format or another run.
    """
    return sealed.read_beside(
        folder / "check.json", schema.CheckResults, owner, f"`advntk check {folder}` writes it again; or remove it"
    )


def check_words(found: schema.CheckResults) -> str:
    """How many checks passed, and how many images are robust, in a sentence or three."""
    failed = [row.name for row in found.checks if not row.passed]
    words = (
        f"{len(found.checks) - len(failed)} of {len(found.checks)} checks of {title_of(found.method)} on "
        f"{found.images} test images passed."
    )
    if failed:
        words += f" Failed: {'; '.join(failed)}."
    said = ((found.own_attack, "under the run's own attack"), (found.white_box, "under all white-box attacks"))
    robust = [f"{as_percent(accuracy.robust)} {under}" for accuracy, under in said if accuracy is not None]
    return f"{words} Robust accuracy: {', '.join(robust)}."


def read_tiers(folder: Location, owner: schema.Described) -> list[schema.TierResults]:
    """Every tier below ``evaluation`` of the run that ``owner`` is of, by name; errors as of :func:`read_check`."""
    place = folder / "evaluation"
    if not place.is_dir():
        return []
    paths = sorted((path for path in place.iterdir() if path.name.endswith(".json")), key=lambda path: path.name)
    found = [
        sealed.read_beside(
            path,
            schema.TierResults,
            owner,
            f"`advntk evaluate {folder} --tier {path.name.partition('_')[0]}` with the same number of images writes it "
            "again; or remove it",
        )
        for path in paths
    ]
    return [tier for tier in found if tier is not None]
