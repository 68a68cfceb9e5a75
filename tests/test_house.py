"""One mechanism for one job: what may stand in one place only is looked for everywhere else."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "advntk_dist"
LONGEST = 450
"""Lines of the longest module."""

PLACES = {
    "ray.remote": "distributed/",
    "ray.wait": "distributed/",
    "ray.kill": "distributed/",
    "ray.cancel": "distributed/",
    "os.fsync": "storage/durable.py",
    "os.replace": "storage/durable.py",
    "os.rename": "storage/durable.py",
    "os.sched_getaffinity": "nowhere: psutil knows it",
}
"""Calls, and the folder or file of the package in which alone they may stand."""


def _modules() -> dict[str, ast.Module]:
    return {str(p.relative_to(PACKAGE)): ast.parse(p.read_text()) for p in sorted(PACKAGE.rglob("*.py"))}


MODULES = _modules()


def _names(tree: ast.Module) -> Iterator[str]:
    """Attributes of modules as they are written, as "ray.wait", and as "from ray import wait" brings them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", PLACES)
def test_a_mechanism_stands_in_one_place(name: str) -> None:
    elsewhere = [path for path, tree in MODULES.items() if name in _names(tree) and not path.startswith(PLACES[name])]
    assert elsewhere == []


@pytest.mark.parametrize("name", ["ray.remote", "ray.wait", "ray.kill", "os.fsync"])
def test_what_is_looked_for_is_found_where_it_may_stand(name: str) -> None:
    assert [path for path, tree in MODULES.items() if name in _names(tree)]


def test_no_class_name_stands_twice() -> None:
    names = Counter(node.name for tree in MODULES.values() for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, times in names.items() if times > 1] == []


def test_no_module_is_longer_than_an_idea() -> None:
    lengths = {str(p.relative_to(PACKAGE)): len(p.read_text().splitlines()) for p in PACKAGE.rglob("*.py")}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST} == {}


def test_no_import_runs_back_up() -> None:
    """The folders and single modules of the package have an order in which each imports from those before it alone."""
    below: dict[str, set[str]] = {}
    for path, tree in MODULES.items():
        part = path.split("/")[0].removesuffix(".py")
        imported = {
            (node.module or "").split(".")[1]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("advntk_dist.")
        }
        below.setdefault(part, set()).update(imported - {part})
    order = list(TopologicalSorter(below).static_order())  # raises CycleError, which names the circle
    assert order[-1] in ("__init__", "__main__")
