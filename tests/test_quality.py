"""The continuous integration runs README's test command: linter, formatter, type checker, tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert command in (ROOT / "README.md").read_text().splitlines()
    for step in ("ruff check", "ruff format --check", "mypy", "pytest"):
        assert step in command


def test_a_file_stays_on_one_worker(request: pytest.FixtureRequest) -> None:
    """pytest-xdist knows a group by the end of the name, which not every release of pytest lets it write."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@tests/test_quality.py")
