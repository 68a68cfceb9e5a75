"""Where the drivers are started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.terminal import RUNS, Terminal, terminal


@pytest.fixture(scope="session")
def forks() -> Iterator[Terminal]:
    with terminal(*RUNS) as found:
        yield found
