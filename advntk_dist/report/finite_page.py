"""The page of a finite-width run: report.html and its plots, in the style of the other reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from advntk_dist.report.attacks import attack_words
from advntk_dist.report.captions import methods_caption
from advntk_dist.report.figures import Plot, plot
from advntk_dist.report.finite import ensemble_figure, training_figure, width_figure
from advntk_dist.report.finite_words import ensemble_caption, headline, training_caption, width_caption
from advntk_dist.report.page import render, write_page
from advntk_dist.report.run_plots import methods_figure
from advntk_dist.report.scores import MethodScore, method_scores
from advntk_dist.report.tables import facts, flatten, stages, total
from advntk_dist.storage.paths import Location

_TITLES = {"finite_at": "Finite AT, last step", "finite_at_best": "Finite AT, best step"}


def finite_scores(results: dict[str, Any]) -> tuple[MethodScore, ...]:
    """Rows of the table, those of finite networks with their names and what they are."""
    width, seeds = results["training"]["width"], len(results["training"]["seeds"])
    rows = []
    for score in method_scores(results):
        if score.key in _TITLES:
            steps = ", ".join(f"{step:,}" for step in results["methods"][score.key]["steps"])
            networks = f"mean of {seeds} networks" if seeds > 1 else "one network"
            detail = f"width {width}, {networks}, step {steps}"
            score = replace(score, title=_TITLES[score.key], detail=detail)
        rows.append(score)
    return tuple(rows)


def make_plots(results: dict[str, Any]) -> dict[str, Plot]:
    """Every plot in page order."""
    scores, flow, training = finite_scores(results), results["flow"], results["training"]
    seeds = len({row["seed"] for row in flow["rows"]})
    return {
        "width": plot(
            lambda theme: width_figure(flow, theme),
            width_caption(flow),
            "Four plots of a quantity against width on log axes with fitted lines; the slopes are in the table below.",
        ),
        "ensemble": plot(
            lambda theme: ensemble_figure(flow["closed_form"], theme),
            ensemble_caption(flow["closed_form"], seeds),
            "Distance of the mean of finite networks from the closed form over training time, with its standard error.",
        ),
        "training": plot(
            lambda theme: training_figure(training, theme),
            training_caption(training, results["n_test"]),
            "Clean and robust accuracy over the steps of adversarial training.",
        ),
        "methods": plot(
            lambda theme: methods_figure(scores, theme),
            methods_caption(scores, attack_words(results.get("attack"))),
            "Bars of clean and robust accuracy of each method; the numbers are in the table above.",
        ),
    }


def write_finite_report(results: dict[str, Any], config_toml: str, folder: Location) -> Location:
    """Write report.html and its PNGs into a run directory; the same results give the same bytes.

    Raises
    ------
    RequestError
        If the folder cannot be written to.
    """
    plots, scores = make_plots(results), finite_scores(results)
    page = render(
        "finite_width.html",
        headline=headline(scores, attack_words(results.get("attack"))),
        facts=[*facts(results), ("Attack", attack_words(results.get("attack")))],
        scores=scores,
        best={max(scores, key=lambda score: score.robust).title},
        plots=plots,
        slopes=results["flow"]["slopes"],
        stages=(timings := stages(results["seconds"])),
        total=total(timings),
        config=config_toml,
        environment=flatten(results["environment"]),
    )
    return write_page(folder, page, {name: made.light for name, made in plots.items()})
