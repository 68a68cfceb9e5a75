"""The table of the grid: one row a network, radius and method, mean and deviation over seeds."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable
from statistics import mean, stdev
from typing import Any

from advntk_dist.config import paper
from advntk_dist.environment import environment
from advntk_dist.evaluation.statistics import student_interval
from advntk_dist.pipeline.directory import RunDirectory
from advntk_dist.reproduce.grid import ATTACKS, METHODS, read_cells, short
from advntk_dist.results import schema, sealed
from advntk_dist.storage.paths import local
from advntk_dist.text import csv_text

CAPTION = (
    "Accuracy in percent: mean over seeds, plus or minus the standard deviation (n - 1) where there are several. "
    "pgd: gradient at the current iterate, perturbation within the radius, 10 steps of a fifth of it. "
    "pgd-reference: the attack of the paper's own JAX code (one gradient, at the random start; perturbations up to "
    "twice the radius). In its columns adv-ntk is also trained, and the time of early-stopped also chosen, with it; "
    "ntk and at are only evaluated with it (at is trained with pgd). early-stopped, one uniform t chosen on the "
    "validation images under the same attack, is a baseline that the paper lacks. at: networks of width 256 after the "
    "last step, trained on the n_train images (the authors' scripts take the validation images as well for ntk and "
    "at). Test images are drawn at random from the publisher's test set."
)
INTERVALS = (
    "interval: Student's 95% interval of the mean over seeds, each of which draws its own images, cut to 0 to 100. "
    "data: fingerprint of the dataset. environment: of the program that wrote this table."
)
"""More of the caption, for what only table.json holds."""

_KEY = ("dataset", "data", "network", "radius", "method", "n_train", "n_val", "n_test", "at_steps", "width")
_OF_AT = ("at_steps", "width")
"""What only adversarially trained networks have."""


def collect(cells: Iterable[schema.CellResults]) -> list[dict[str, Any]]:
    """Rows of the table from committed cells."""
    groups: dict[tuple[Any, ...], list[schema.CellResults]] = defaultdict(list)
    for cell in cells:
        left_out = () if cell.method == "at" else _OF_AT
        groups[tuple(None if k in left_out else getattr(cell, k) for k in _KEY)].append(cell)
    rows = []
    for key, members in groups.items():
        row: dict[str, Any] = dict(zip(_KEY, key, strict=True))
        for attack in ATTACKS:
            of = sorted((cell for cell in members if cell.attack == attack), key=lambda cell: cell.seed)
            row[attack] = {
                "seeds": [cell.seed for cell in of],
                "max_perturbation": max((cell.max_perturbation for cell in of), default=None),
                "clean": _spread([100 * cell.clean for cell in of]),
                "robust": _spread([100 * cell.robust for cell in of]),
            }
        row["differs"] = differs(row)
        rows.append(row)
    return sorted(rows, key=_order)


def differs(row: dict[str, Any]) -> str:
    """What of a row is not as in the paper; empty for nothing."""
    found = []
    if row["dataset"] not in paper.DATASETS or row["network"] not in paper.NETWORKS:
        found.append("not in the paper")
    elif row["radius"] not in paper.RADII:
        found.append("radius")
    for key, usual, unit in (
        ("n_train", paper.N_TRAIN, "training images"),
        ("n_val", paper.N_VAL, "validation images"),
        ("at_steps", paper.AT_STEPS, "steps (milestones in proportion)"),
    ):
        if row[key] not in (None, usual):
            found.append(f"{row[key]:,} {unit} instead of {usual:,}")
    if row["width"] not in (None, paper.AT_WIDTH):
        found.append(f"width {row['width']} instead of {paper.AT_WIDTH}")
    elif row["width"] is not None and row["network"].startswith("mlp-"):
        found.append(
            f"width {row['width']} as the paper states (its scripts: {paper.AT_WIDTH_OF_MLP_SCRIPTS} for MLPs)"
        )
    return "; ".join(found)


def write_tables(folder: RunDirectory) -> list[dict[str, Any]]:
    """Write table.json, .csv, .md and .html of every committed cell; returns the rows.

    Raises
    ------
    StoreDamagedError
        If a cell cannot be parsed.
    """
    rows = collect(read_cells(local(folder.root)).values())
    head, body = cells_of(rows)
    texts = {
        "json": sealed.as_text(
            schema.TableResults, {"caption": f"{CAPTION} {INTERVALS}", "environment": environment(), "rows": rows}
        ),
        "csv": _csv(rows),
        "md": markdown(head, body),
        "html": _html(head, body),
    }
    for suffix, text in texts.items():
        folder.write_text(folder.root / f"table.{suffix}", text)
    return rows


def cells_of(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and body as text."""
    known: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        known[row["dataset"]].add(row["data"])
    head = ["dataset", "network", "radius", "method"]
    head += [f"{what}, {attack}" for attack in ATTACKS for what in ("clean", "robust")]
    head += ["seeds", "n_train", "n_test", "differs from the paper"]
    body = []
    for row in rows:
        seeds = [len(row[attack]["seeds"]) for attack in ATTACKS]
        label = row["dataset"]
        body.append(
            [
                label if len(known[label]) == 1 else f"{label} ({short(row['data'])})",
                row["network"],
                f"{row['radius']:g}/255",
                row["method"],
                *(_text(row[attack][what]) for attack in ATTACKS for what in ("clean", "robust")),
                str(seeds[0]) if seeds[0] == seeds[1] else " and ".join(map(str, seeds)),
                str(row["n_train"]),
                str(row["n_test"]),
                row["differs"] or "no",
            ]
        )
    return head, body


def markdown(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table with its caption."""
    lines = [head, ["---"] * len(head), *body]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
    return f"{table}\n\n{CAPTION}\n"


def _spread(values: list[float]) -> dict[str, Any]:
    if len(values) < 2:
        return {"mean": values[0] if values else None, "std": None, "interval": None}
    middle, deviation = mean(values), stdev(values)
    low, high = student_interval(middle, deviation, len(values))
    return {"mean": middle, "std": deviation, "interval": [max(0.0, low), min(100.0, high)]}


def _text(value: dict[str, Any]) -> str:
    if value["mean"] is None:
        return ""
    return f"{value['mean']:.1f}" + ("" if value["std"] is None else f" ± {value['std']:.1f}")


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    family, _, depth = str(row["network"]).rpartition("-")
    place = METHODS.index(row["method"])
    return (
        row["dataset"],
        row["data"],
        family,
        int(depth),
        row["n_train"],
        row["n_val"],
        row["n_test"],
        row["radius"],
        place,
        (row["at_steps"] or 0),
    )


def _csv(rows: list[dict[str, Any]]) -> str:
    measured = [(a, w, s) for a in ATTACKS for w in ("clean", "robust") for s in ("mean", "std")]
    return csv_text(
        [
            {k: row[k] for k in _KEY}
            | {"_".join(m): row[m[0]][m[1]][m[2]] for m in measured}
            | {f"{a}_seeds": len(row[a]["seeds"]) for a in ATTACKS}
            | {"differs": row["differs"]}
            for row in rows
        ]
    )


def _html(head: list[str], body: list[list[str]]) -> str:
    def line(tag: str, cells: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    rows = "\n".join(line("td", cells) for cells in body)
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Reproduction</title>\n'
        "<style>body{font-family:sans-serif}table{border-collapse:collapse}"
        "td,th{border:1px solid #bbb;padding:.2em .5em;text-align:left}"
        "caption{caption-side:bottom;text-align:left}</style>\n"
        f"<table><caption>{html.escape(CAPTION)}</caption>\n<thead>{line('th', head)}</thead>\n"
        f"<tbody>\n{rows}\n</tbody></table></html>\n"
    )
