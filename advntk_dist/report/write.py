"""Write a run's report: one self-contained page and its plots as PNGs, each file whole or not at all."""

from __future__ import annotations

from typing import Any

from advntk_dist.report.attacks import attack_words, attacks_met, under_attack, worst_results
from advntk_dist.report.dynamics import read_dynamics
from advntk_dist.report.examined import Checked, TierTable, read_check, read_tiers
from advntk_dist.report.figures import NAMES, Plot, dynamics_plot, make_plots
from advntk_dist.report.inputs import ReportInputs
from advntk_dist.report.judgements import highlighted
from advntk_dist.report.page import render, write_page
from advntk_dist.report.scores import method_scores, pairs_of
from advntk_dist.report.sentences import summarise, tier_words
from advntk_dist.report.tables import facts, flatten, stages, total
from advntk_dist.storage.paths import Location


def write_report(inputs: ReportInputs, folder: Location) -> Location:
    """Write ``report.html`` and its PNGs into ``folder`` and return the page's path.

    The same inputs give the same bytes; a file that already holds them is not touched. A PNG of an earlier
    report whose part is absent now is removed, so that the folder shows one run. The page is written last.

    Results of `advntk dynamics`, `advntk check` and `advntk evaluate --tier` that lie in the folder are shown.

    Raises
    ------
    RequestError
        If ``folder`` cannot be written to, or a tier in it lacks an accuracy.
    StoreDamagedError
        If such results in it cannot be read.
    """
    plots = make_plots(inputs)
    dynamics = read_dynamics(folder)
    if dynamics is not None:
        plots["dynamics"] = dynamics_plot(dynamics)
    pngs = {name: plot.light for name in NAMES if isinstance(plot := plots[name], Plot)}
    page = render_page(inputs, plots, read_check(folder, inputs.results), read_tiers(folder, inputs.results))
    return write_page(folder, page, pngs, absent=[name for name in NAMES if name not in pngs])


def render_page(
    inputs: ReportInputs,
    plots: dict[str, Plot | str],
    checked: Checked | None = None,
    tiers: tuple[TierTable, ...] = (),
) -> str:
    """Render the page as HTML text; everything from the inputs is escaped."""
    results = worst_results(inputs.results)
    scores, pairs = method_scores(results), pairs_of(results)
    own_scores, own_pairs = method_scores(inputs.results), pairs_of(inputs.results)
    timings = stages(results.get("seconds"))
    return render(
        "report.html",
        summary=summarise(inputs),
        facts=[*facts(results), ("Under attack", under_attack(results)), *inputs.facts],
        scores=scores,
        pairs=pairs,
        best=highlighted(scores, pairs),
        under=under_attack(results),
        own_attack=attack_words(results.get("attack")),
        own_scores=own_scores if len(attacks_met(results)) > 1 else (),
        own_pairs=own_pairs,
        own_best=highlighted(own_scores, own_pairs),
        more=_no_tier(results),
        plots={name: plots[name] for name in (*NAMES, "dynamics") if name in plots},
        checked=checked,
        tiers=[(tier, highlighted(tier.scores, tier.pairs)) for tier in tiers],
        stages=timings,
        total=total(timings),
        config=inputs.config_toml,
        environment=flatten(results["environment"]) if results.get("environment") else [],
        numbers=flatten(inputs.results),
    )


def _no_tier(results: dict[str, Any]) -> str:
    """What the page says in place of the tables of tiers, where there are none."""
    if len(attacks_met(results)) > 1:
        return "No table of a tier lies beside this run; `advntk evaluate RUN --tier TIER` writes it again."
    return f"Not held to a tier of attacks yet: {tier_words(results)}"
