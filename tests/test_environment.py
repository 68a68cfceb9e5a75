"""The cores of this process, on systems with and without affinity."""

from __future__ import annotations

import psutil
import pytest

from advntk_dist.environment import environment, usable_cores


def test_cores_are_those_that_the_process_may_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda self: [0, 2, 5], raising=False)
    assert usable_cores() == environment()["cpu_count"] == 3


def test_without_affinity_they_are_those_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(psutil.Process, "cpu_affinity", raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda: None)
    assert usable_cores() == 1
    monkeypatch.setattr(psutil, "cpu_count", lambda: 10)
    assert usable_cores() == 10
