"""The degeneration plot of `advntk dynamics`: standard and adversarial training over effective time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from advntk_dist.report.page import write_plots
from advntk_dist.report.style import (
    CLEAN,
    INK,
    ROBUST,
    Plot,
    accuracy_axis,
    accuracy_legend,
    log_axis,
    new_figure,
    note,
    plot,
    title,
)
from advntk_dist.results import schema
from advntk_dist.storage.paths import Location
from advntk_dist.text import as_number, as_percent

_TITLES = {"standard": "standard training", "adversarial": "adversarial training"}


def read_dynamics(folder: Location) -> dict[str, Any] | None:
    """What dynamics.json in a run directory holds; None where there is none.

    Raises
    ------
    StoreError
        If it was changed since it was written, or is of another format.
    """
    remedy = f"`advntk dynamics {folder}` writes it again; or remove it"
    return schema.read(folder / "dynamics.json", schema.DynamicsResults, remedy)


def dynamics_figure(results: dict[str, Any]) -> Figure:
    """One panel a flow: clean and robust accuracy with 95% bands, dashed limits, and the time to stop at."""
    figure = new_figure(4.6)
    panels = figure.subplots(len(results["flows"]), 1, sharex=True, sharey=True)
    highest = max(row["clean_high"] for flow in results["flows"].values() for row in flow["rows"])
    log_axis(panels[0].xaxis)
    for axes, (name, flow) in zip(panels, results["flows"].items(), strict=True):
        rows = [row for row in flow["rows"] if row["t"] is not None]
        limit = flow["rows"][-1]
        at = np.array([row["effective_time"] for row in rows])
        for kind, colour, marker in (("clean", CLEAN, "s"), ("robust", ROBUST, "o")):
            low, high, value = (np.array([row[kind + end] for row in rows]) for end in ("_low", "_high", ""))
            axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(at, value, color=colour, marker=marker, markersize=3, label=kind if name == "standard" else None)
            axes.axhline(limit[kind], color=colour, linestyle=(0, (4, 3)), linewidth=1.2)
            beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center"}
            note(axes, as_percent(limit[kind]), (1.0, limit[kind]), (5, 0), colour, **beside)
        stop = flow["early_stopping"]["effective_time"]
        axes.axvline(stop, color=INK, linewidth=1.0, linestyle=(0, (1, 2)))
        note(axes, "stop here", (stop, 0.0), (3, 3), INK, xycoords=("data", "axes fraction"), ha="left", va="bottom")
        accuracy_axis(axes, highest)
        title(axes, _TITLES[name])
    panels[-1].set_xlabel("effective training time of the median sample")
    accuracy_legend(figure)
    return figure


def dynamics_caption(results: dict[str, Any]) -> str:
    """What the reader sees: robust accuracy at the start, where validation says to stop, and at the end."""
    flows = results["flows"]
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


def _overfitting(flows: dict[str, Any], end: dict[str, Any]) -> str:
    lost = [_TITLES[name] for name, flow in flows.items() if _beyond(_stop(flow), end)]
    fell = any(_stop(flow)["robust"] > end["robust"] for flow in flows.values())
    if len(lost) == len(flows):
        return "robust overfitting, beyond the 95% intervals"
    if lost:
        return f"robust overfitting beyond the 95% intervals in {' and '.join(lost)} alone"
    if fell:
        return f"a loss inside the 95% intervals of {end['n_test']:,} images, so robust overfitting is not shown"
    return "no robust overfitting on these images at this radius"


def _stop(flow: dict[str, Any]) -> dict[str, Any]:
    """The row of the time at which validation says to stop."""
    return dict(next(row for row in flow["rows"] if row["t"] == flow["early_stopping"]["t"]))


def _beyond(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the robust accuracy of one row is above that of another beyond both intervals."""
    return bool(one["robust_low"] > other["robust_high"])


def dynamics_plot(results: dict[str, Any]) -> Plot:
    """The plot of what dynamics.json holds, with its rows."""
    rows = [{"flow": name, **row} for name, flow in results["flows"].items() for row in flow["rows"]]
    for row in rows:
        if row["t"] is None:
            row |= {"t": math.inf, "effective_time": math.inf}
    return plot(
        lambda: dynamics_figure(results),
        rows,
        dynamics_caption(results),
        "Clean and robust accuracy over effective training time, of standard and of adversarial training.",
    )


def write_dynamics_plot(results: dict[str, Any], folder: Location) -> None:
    """Write dynamics.svg and dynamics.csv into a run directory; t = infinity is "inf" there, and null in JSON."""
    write_plots(folder, {"dynamics": dynamics_plot(results)})
