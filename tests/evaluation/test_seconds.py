"""Time that adds up over starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advntk_dist.evaluation.committed import CommittedSeconds
from advntk_dist.storage import guarded_group


def test_seconds_add_up_over_starts_and_lose_what_follows_the_last_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, now = guarded_group(tmp_path / "g", {"of": "toy"}), [100.0]
    monkeypatch.setattr("advntk_dist.evaluation.committed.time.monotonic", lambda: now[0])
    first = CommittedSeconds(group, "a_seconds")
    assert first.total == 0.0
    now[0] += 5
    first.commit()
    now[0] += 2
    first.commit()
    now[0] += 1000  # killed here
    second = CommittedSeconds(guarded_group(tmp_path / "g", {"of": "toy"}), "a_seconds")
    assert second.total == 7.0
    now[0] += 3
    second.commit()
    assert second.total == CommittedSeconds(group, "a_seconds").total == 10.0
    assert CommittedSeconds(group, "b_seconds").total == 0.0


def test_a_damaged_clock_starts_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    group = guarded_group(tmp_path / "g", {"of": "toy"})
    CommittedSeconds(group, "a_seconds").commit()
    chunk = next(p for p in (tmp_path / "g" / "a_seconds").rglob("*") if p.is_file() and p.name != "zarr.json")
    chunk.write_bytes(bytes(np.frombuffer(chunk.read_bytes(), np.uint8) ^ 1))
    assert CommittedSeconds(group, "a_seconds").total == 0.0
    (said,) = caplog.messages
    assert "a_seconds: rows 0 to 1 do not count as done" in said
