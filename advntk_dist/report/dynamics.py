"""The degeneration plot of `advntk dynamics`: standard and adversarial training over effective time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from matplotlib.figure import Figure

from advntk_dist.report.page import write_plots
from advntk_dist.report.style import (
    DOTTED,
    INK,
    KINDS,
    Plot,
    accuracy_axis,
    accuracy_legend,
    accuracy_lines,
    limit_lines,
    log_axis,
    new_figure,
    note,
    plot,
    title,
)
from advntk_dist.results import schema, sealed
from advntk_dist.storage.paths import Location
from advntk_dist.text import as_number, as_percent

Flows = Mapping[Literal["standard", "adversarial"], Mapping[str, Any]]
"""The flows of dynamics.json by name; the last row of each is at t = infinity."""

_TITLES = {"standard": "standard training", "adversarial": "adversarial training"}


def read_dynamics(folder: Location) -> schema.DynamicsResults | None:
    """What dynamics.json in a run directory holds; None where there is none.

    Raises
    ------
    StoreError
        If it was changed since it was written, or is of another format.
    """
    remedy = f"`advntk dynamics {folder}` writes it again; or remove it"
    return sealed.read(folder / "dynamics.json", schema.DynamicsResults, remedy)


def dynamics_plot(results: schema.DynamicsResults) -> Plot:
    """Standard and adversarial training over all times; t = infinity is "inf" in the rows, and null in the JSON."""
    rows = [{"flow": name, **row} for name, flow in results.flows.items() for row in flow["rows"]]
    for row in rows:
        if row["t"] is None:
            row |= {"t": math.inf, "effective_time": math.inf}
    return plot(
        lambda: dynamics_figure(results.flows),
        rows,
        dynamics_caption(results.flows),
        "Clean and robust accuracy over effective training time, of standard and of adversarial training.",
    )


def write_dynamics_plot(results: schema.DynamicsResults, folder: Location) -> None:
    """Write dynamics.svg and dynamics.csv into a run directory."""
    write_plots(folder, {"dynamics": dynamics_plot(results)})


def dynamics_figure(flows: Flows) -> Figure:
    """One panel a flow: clean and robust accuracy with 95% bands, dashed limits, and the time to stop at."""
    figure = new_figure(4.6)
    panels = figure.subplots(len(flows), 1, sharex=True, sharey=True)
    highest = max(row["clean_high"] for flow in flows.values() for row in flow["rows"])
    log_axis(panels[0].xaxis)
    for axes, (name, flow) in zip(panels, flows.items(), strict=True):
        *points, limit = flow["rows"]
        accuracy_lines(axes, points, "effective_time", "{}" if name == "standard" else "_{}")
        limit_lines(axes, limit)
        beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center"}
        for kind, colour, _ in KINDS:
            note(axes, as_percent(limit[kind]), (1.0, limit[kind]), (5, 0), colour, **beside)
        stop = flow["early_stopping"]["effective_time"]
        axes.axvline(stop, color=INK, linewidth=1.0, linestyle=DOTTED)
        note(axes, "stop here", (stop, 0.0), (3, 3), INK, xycoords=("data", "axes fraction"), ha="left", va="bottom")
        accuracy_axis(axes, highest)
        title(axes, _TITLES[name])
    panels[-1].set_xlabel("effective training time of the median sample")
    accuracy_legend(figure)
    return figure


def dynamics_caption(flows: Flows) -> str:
    """What the reader sees: robust accuracy at the start, where validation says to stop, and at the end."""
    end = next(iter(flows.values()))["rows"][-1]
    parts = []
    for name, flow in flows.items():
        parts.append(
            f"in {_TITLES[name]} it {_course(flow['rows'][0], _stop(flow))} where validation says to stop "
            f"(effective time {as_number(flow['early_stopping']['effective_time'])})"
        )
    return (
        f"Robust accuracy: {' and '.join(parts)}; the plain NTK (dashed), where both end whatever the attack in "
        f"training was, has {as_percent(end['robust'])}: {_overfitting(flows, end)}."
    )


def _course(start: dict[str, Any], stop: dict[str, Any]) -> str:
    if stop["robust"] == start["robust"]:
        return f"stays at {as_percent(stop['robust'])}"
    numbers = f"from {as_percent(start['robust'])} to {as_percent(stop['robust'])}"
    if _beyond(stop, start):
        return f"rises {numbers}"
    return f"falls {numbers}" if _beyond(start, stop) else f"goes, inside the 95% intervals, {numbers}"


def _overfitting(flows: Flows, end: dict[str, Any]) -> str:
    lost = [_TITLES[name] for name, flow in flows.items() if _beyond(_stop(flow), end)]
    fell = any(_stop(flow)["robust"] > end["robust"] for flow in flows.values())
    if len(lost) == len(flows):
        return "robust overfitting, beyond the 95% intervals"
    if lost:
        return f"robust overfitting beyond the 95% intervals in {' and '.join(lost)} alone"
    if fell:
        return f"a loss inside the 95% intervals of {end['n_test']:,} images, so robust overfitting is not shown"
    return "no robust overfitting on these images at this radius"


def _stop(flow: Mapping[str, Any]) -> dict[str, Any]:
    """The row of the time at which validation says to stop."""
    return dict(next(row for row in flow["rows"] if row["t"] == flow["early_stopping"]["t"]))


def _beyond(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the robust accuracy of one row is above that of another beyond both intervals."""
    return bool(one["robust_low"] > other["robust_high"])
