"""A run's report: its plots, one self-contained page, and the data of each plot, each file whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from advntk_dist.report import image_plots, run_plots, sentences
from advntk_dist.report.attacks import attack_words, attacks_met, attacks_words, under_attack, worst_results
from advntk_dist.report.dynamics import dynamics_plot, read_dynamics
from advntk_dist.report.inputs import ReportInputs
from advntk_dist.report.judgements import MethodScore, highlighted, method_scores, pairs_of, title_of
from advntk_dist.report.page import facts, flatten, render, stages, total, write_page
from advntk_dist.report.style import Plot, plot
from advntk_dist.results import schema
from advntk_dist.storage.paths import Location
from advntk_dist.text import as_percent

NAMES = ("methods", "degeneration", "training", "varpi", "extremes", "examples", "spectrum")
"""Plots of a run's report; that of `advntk dynamics` comes beside them."""


class TierTable(NamedTuple):
    """A tier, the words of its attacks, and its methods with what each attack in turn left of them."""

    name: str
    images: int
    attacks: list[str]
    scores: tuple[MethodScore, ...]
    pairs: tuple[schema.PairRow, ...]


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
    scores, classes = method_scores(worst_results(inputs.results)), inputs.classes
    curve, history, varpi, y = inputs.curve, inputs.training, inputs.varpi, inputs.y_train
    examples, extremes, spectrum = inputs.examples, inputs.extremes, inputs.spectrum
    drawn = (
        plot(
            lambda: run_plots.methods_figure(scores),
            run_plots.methods_rows(scores),
            sentences.methods_caption(under_attack(inputs.results)),
            "Bars of clean and robust accuracy of each method; the numbers are in the table above.",
        ),
        plot(
            lambda: run_plots.degeneration_figure(curve),
            run_plots.degeneration_rows(curve),
            sentences.curve_caption(curve),
            sentences.curve_alt(curve),
        ),
        plot(
            lambda: run_plots.training_figure(history),
            run_plots.training_rows(history),
            sentences.training_caption(history),
            "Loss, gradient norm, robust accuracy and ϖ over the steps of Adv-NTK.",
        ),
        plot(
            lambda: run_plots.varpi_figure(varpi, y, classes),
            run_plots.varpi_rows(varpi, y, classes),
            sentences.varpi_caption(varpi, y, classes),
            "Histogram of the training times of all samples, with a box for each class.",
        ),
        plot(
            lambda: image_plots.extremes_figure(extremes, classes),
            image_plots.extremes_rows(extremes, classes),
            sentences.extremes_caption(extremes, varpi),
            "Training images with the longest and the shortest effective training times.",
        ),
        plot(
            lambda: image_plots.examples_figure(examples, classes),
            image_plots.examples_rows(examples, classes),
            sentences.examples_caption(examples, title_of(examples.method)),
            "Test images in columns: clean, adversarial twin, magnified difference.",
        ),
        plot(
            lambda: run_plots.spectrum_figure(spectrum, curve.chosen_t),
            run_plots.spectrum_rows(spectrum),
            sentences.spectrum_caption(spectrum, curve.chosen_t),
            "The largest eigenvalues of the Gram matrix against their number.",
        ),
    )
    return dict(zip(NAMES, drawn, strict=True))


def render_page(
    inputs: ReportInputs,
    plots: Mapping[str, Plot],
    checked: dict[str, Any] | None = None,
    tiers: tuple[TierTable, ...] = (),
) -> str:
    """Render the page as HTML text; everything from the inputs is escaped."""
    results = worst_results(inputs.results)
    scores, pairs = method_scores(results), pairs_of(results)
    own_scores, own_pairs = method_scores(inputs.results), pairs_of(inputs.results)
    timings = stages(results["seconds"])
    return render(
        "report.html",
        summary=sentences.summarise(inputs),
        facts=[*facts(results), ("Under attack", under_attack(results)), *inputs.facts],
        scores=scores,
        pairs=pairs,
        best=highlighted(scores, pairs),
        under=under_attack(results),
        own_attack=attack_words(results["attack"]),
        own_scores=own_scores if len(attacks_met(results)) > 1 else (),
        own_pairs=own_pairs,
        own_best=highlighted(own_scores, own_pairs),
        more=_no_tier(results),
        plots=plots,
        checks=() if checked is None else checked["checks"],
        checked=None if checked is None else check_words(checked),
        tiers=[(tier, highlighted(tier.scores, tier.pairs)) for tier in tiers],
        stages=timings,
        total=total(timings),
        config=inputs.config_toml,
        environment=flatten(results["environment"]),
        numbers=flatten(inputs.results),
    )


def _no_tier(results: dict[str, Any]) -> str:
    """What the page says in place of the tables of tiers, where there are none."""
    if len(attacks_met(results)) > 1:
        return "No table of a tier lies beside this run; `advntk evaluate RUN --tier TIER` writes it again."
    return f"Not held to a tier of attacks yet: {sentences.tier_words(results)}"


def read_check(folder: Location, owner: dict[str, Any]) -> dict[str, Any] | None:
    """What check.json says, of the run that ``owner`` names; None where there is no such file.

    Raises
    ------
    StoreError
        If it was changed since it was written, or is of another format.
    """
    path, remedy = folder / "check.json", f"`advntk check {folder}` writes it again; or remove it"
    found = schema.read(path, schema.CheckResults, remedy)
    if found is not None:
        schema.require_owner(path, found, owner, remedy)
    return found


def check_words(found: dict[str, Any]) -> str:
    """How many checks passed, and how many images are robust, in a sentence or three."""
    rows = found["checks"]
    failed = [row["name"] for row in rows if not row["passed"]]
    method = title_of(found["method"])
    words = f"{len(rows) - len(failed)} of {len(rows)} checks of {method} on {found['images']} test images passed."
    if failed:
        words += f" Failed: {'; '.join(failed)}."
    said = (("own_attack", "under the run's own attack"), ("white_box", "under all white-box attacks"))
    robust = [f"{as_percent(found[key]['robust'])} {under}" for key, under in said if found[key] is not None]
    return f"{words} Robust accuracy: {', '.join(robust)}."


def read_tiers(folder: Location, owner: dict[str, Any]) -> tuple[TierTable, ...]:
    """Every tier below ``evaluation`` of the run that ``owner`` names, by name.

    Raises
    ------
    StoreError
        If a file was changed since it was written, or is of another format.
    """
    place = folder / "evaluation"
    if not place.is_dir():
        return ()
    paths = sorted((path for path in place.iterdir() if path.name.endswith(".json")), key=lambda path: path.name)
    return tuple(_tier(path, folder, owner) for path in paths)


def _tier(path: Location, folder: Location, owner: dict[str, Any]) -> TierTable:
    tier = path.name.partition("_")[0]
    remedy = f"`advntk evaluate {folder} --tier {tier}` with the same number of images writes it again; or remove it"
    found = schema.read(path, schema.TierResults, remedy)
    assert found is not None
    schema.require_owner(path, found, owner, remedy)
    scores = [score.model_copy(update={"detail": _left(found["methods"][score.key])}) for score in method_scores(found)]
    attacks = [{key: value for key, value in row.items() if key != "called"} for row in found["attacks"]]
    return TierTable(found["tier"], found["images"], attacks_words(attacks), tuple(scores), pairs_of(found))


def _left(row: dict[str, Any]) -> str:
    """What each attack in turn left of a method."""
    return ", ".join(f"{a['name']} leaves {as_percent(a['robust'])}" for a in row["attacks"])
