"""Seeded chaos: workers and drivers killed and stopped, bytes flipped, disks filled; the store comes out the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from advntk_dist.gram.store import GramStore
from advntk_dist.gram.verify import verify_gram
from advntk_dist.grid import Tile
from advntk_dist.networks import network
from advntk_dist.storage.paths import local
from tests.filled import build_gram_here
from tests.terminal import Process, Terminal
from tests.waiting import wait_until

DRIVER = Path(__file__).with_name("chaos_driver.py")
OPTIONS: dict[str, Any] = {"n": 480, "tile": 8, "deadline": 4.0}  # 1830 tiles, a few milliseconds each
DURING = ("kill worker", "stop worker", "kill driver", "second builder")
DEADLY = DURING[:3]
SHORT = OPTIONS | {"n": 104, "pause": 0.05, "workers": 1}  # 91 tiles, slow enough to be hit
BETWEEN = ("flip chunk", "cut chunk", "lose chunk", "flip record", "cut record", "leave partial")


class Chaos:
    """A store, the driver that builds it, and the faults that have hit each tile."""

    def __init__(self, forks: Terminal, folder: Path, seed: int, options: dict[str, Any] | None = None) -> None:
        self.forks, self.store, self.log = forks, folder / "gram.zarr", folder / "log.jsonl"
        self.random = random.Random(seed)
        self.options = dict(OPTIONS if options is None else options)
        self.process: Process | None = None
        self.starts = 0
        self._read, self._events = 0, list[dict[str, Any]]()
        self.damage: Counter[tuple[int, int]] = Counter()
        self.faults: Counter[str] = Counter()

    def start(self) -> None:
        self.starts += 1
        self.process = self.forks.start(str(DRIVER), str(self.store), str(self.log), json.dumps(self.options))

    def finish(self) -> tuple[int | None, str]:
        assert self.process is not None
        _, err = self.process.communicate(timeout=240)
        lines = [line for line in err.splitlines() if "Error: " in line]
        return self.process.returncode, lines[-1] if lines else err

    def events(self) -> list[dict[str, Any]]:
        """All events of all drivers so far."""
        if self.log.exists():
            with self.log.open("rb") as file:
                file.seek(self._read)
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                self._read += len(whole) + 1
                self._events += [json.loads(line) for line in whole.splitlines()]
        return self._events

    def run_events(self) -> list[dict[str, Any]]:
        """Events of the driver that was started last; none before it has said that it runs."""
        events = self.events()
        starts = [k for k, e in enumerate(events) if e["event"] == "start"]
        return events[starts[-1] :] if len(starts) == self.starts else []

    def wait_for_tiles(self, count: int) -> bool:
        """Wait until this run has finished ``count`` tiles; False if it ended before."""
        process = self.process
        assert process is not None

        def ended() -> bool:
            return any(e["event"] == "end" for e in self.run_events()) or process.poll() is not None

        def finished() -> int:
            return sum(e["event"] == "tile" for e in self.run_events())

        wait_until(lambda: ended() or finished() >= count, why="the build makes no progress")
        return not ended()

    def wait_for(self, name: str) -> None:
        """Wait for an event of this run."""
        wait_until(lambda: any(e["event"] == name for e in self.run_events()), why=f"no {name}")

    def workers(self) -> list[int]:
        """Those of this run that live."""
        events = self.run_events()
        lost = {e["worker"] for e in events if e["event"] == "worker_lost"}
        ready = [e["pid"] for e in events if e["event"] == "worker_ready" and e["worker"] not in lost]
        return [pid for pid in ready if psutil.pid_exists(pid)]

    def signal_worker(self, number: signal.Signals) -> bool:
        """Send a signal to a living worker of this run; whether there was one."""
        alive = self.workers()
        with suppress(ProcessLookupError):
            if alive:
                os.kill(self.random.choice(alive), number)
                return True
        return False

    def strike_during(self, fault: str) -> None:
        assert self.process is not None
        if fault.endswith("worker"):
            self.faults[fault] += self.signal_worker(signal.SIGKILL if fault == "kill worker" else signal.SIGSTOP)
        else:
            second = Chaos(self.forks, self.store.parent, 0, self.options)
            second.log = self.log.with_name("second.jsonl")
            second.start()
            code, message = second.finish()
            if self.process.poll() is None:
                assert (code, message.split(":")[0]) == (1, "StoreBusyError"), message
                self.faults[fault] += 1

    def strike_between(self, fault: str) -> None:
        store = GramStore.open(self.store)
        done = store.committed()
        tile: Tile = self.random.choice([t for t in store.grid if done[t.i, t.j]])
        chunk = store.chunk_path("ntk", tile.i, tile.j)
        record = self.store / "commits" / "ntk" / "c" / str(tile.i) / str(tile.j) / "0"
        if fault == "leave partial":
            chunk.with_name(f"{chunk.name}.0123.partial").write_bytes(b"half")
        elif fault == "lose chunk":
            chunk.unlink()
        else:
            path = chunk if fault.endswith("chunk") else record
            data = bytearray(path.read_bytes())
            if fault.startswith("cut"):
                data = data[: self.random.randrange(len(data))]
            else:
                data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
            path.write_bytes(bytes(data))
        if fault != "leave partial":
            self.damage[tile.i, tile.j] += 1
        self.faults[fault] += 1

    def kill_driver_for_good(self) -> None:
        assert self.process is not None
        workers = self.workers()
        self.process.kill()
        self.process.wait(30)
        self.faults["kill driver"] += 1
        # they may still commit the tile they have
        wait_until(lambda: not any(map(psutil.pid_exists, workers)), why="its workers outlive it")

    def check(self, reference: Path) -> None:
        """Byte-identical to the undisturbed store, and nothing was computed more often than the faults explain."""
        store = GramStore.open(self.store)
        report, calm = verify_gram(store), GramStore.open(reference)
        assert report.ok, report
        for t in store.grid:
            ours = store.chunk_path("ntk", t.i, t.j).read_bytes()
            assert ours == calm.chunk_path("ntk", t.i, t.j).read_bytes(), t
        assert not list(self.store.rglob("*.partial"))
        drivers = self.faults["kill driver"]
        computed = Counter(tuple(e["tile"]) for e in self.events() if e["event"] == "tile")
        # A tile whose commit a dying driver did not hear of is found committed, so it has no receipt at all.
        for place, count in computed.items():
            assert count <= 1 + self.damage[place], (place, count, self.damage[place])
        again = sum(e["event"] == "tile_again" for e in self.events())
        lost = [e for e in self.events() if e["event"] == "worker_lost"]
        assert again <= sum(len(e["tiles"]) for e in lost) + 2 * len(lost)
        assert all(len(e["tiles"]) <= 2 for e in lost)
        assert len(lost) >= self.faults["kill worker"] - drivers
        assert sum(computed.values()) <= len(store.grid) + sum(self.damage.values()) + drivers
        assert max(e["attempt"] for e in self.events() if e["event"] == "tile") <= 1 + len(lost)


def undisturbed(folder: Path, options: dict[str, Any]) -> Path:
    """The store of an undisturbed build, in this process."""
    x = np.random.default_rng(0).integers(0, 256, (options["n"], 8, 8, 1), dtype=np.uint8)
    store = build_gram_here(network("mlp-2"), x, store=folder / "gram.zarr", tile=options["tile"], dtype="float32")
    return local(store.path)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = undisturbed(tmp_path_factory.mktemp("calm"), OPTIONS)
    assert len(GramStore.open(path).grid) == 1830
    return path


def test_short_chaos(forks: Terminal, tmp_path: Path) -> None:
    (tmp_path / "calm").mkdir()
    reference = undisturbed(tmp_path / "calm", SHORT)
    chaos = Chaos(forks, tmp_path, 0, SHORT)
    chaos.start()
    chaos.wait_for("worker_started")
    chaos.strike_during("second builder")
    assert chaos.wait_for_tiles(10)
    chaos.strike_during("kill worker")
    assert chaos.wait_for_tiles(30)
    chaos.kill_driver_for_good()
    for fault in BETWEEN:
        chaos.strike_between(fault)
    chaos.start()
    assert chaos.finish()[0] == 0
    chaos.check(reference)
    assert chaos.faults["kill worker"] == 1
    assert len(chaos.faults) >= 8, chaos.faults


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_long_chaos(forks: Terminal, reference: Path, tmp_path: Path, seed: int) -> None:
    chaos = Chaos(forks, tmp_path, seed, {**OPTIONS, "pause": 0.1})
    chaos.start()
    seen = 0
    while sum(chaos.faults[fault] for fault in DEADLY) < 20:
        seen += chaos.random.randint(1, 40)
        if chaos.wait_for_tiles(seen):
            seen = sum(e["event"] == "tile" for e in chaos.run_events())
            (fault,) = chaos.random.choices(DURING, weights=(10, 3, 4, 1))
            if fault != "kill driver":
                chaos.strike_during(fault)
                continue
            chaos.kill_driver_for_good()
        else:
            code, message = chaos.finish()
            assert code == 0, message
        for _ in range(chaos.random.randint(1, 2)):
            chaos.strike_between(chaos.random.choice(BETWEEN))
        chaos.start()
        seen = 0
    assert chaos.process is not None
    chaos.process.kill()
    chaos.process.wait(30)
    chaos.faults["kill driver"] += 1
    chaos.options["pause"] = 0.0
    chaos.start()
    code, message = chaos.finish()
    assert code == 0, message
    chaos.check(reference)
    print(dict(chaos.faults))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=False)
    if done.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_full_disk(forks: Terminal, reference: Path, tmp_path: Path, small_disk: Path) -> None:
    chaos = Chaos(forks, tmp_path, 0)
    chaos.store = small_disk / "gram.zarr"
    chaos.options["pause"] = 0.02
    chaos.start()
    assert chaos.wait_for_tiles(50)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    code, message = chaos.finish()
    assert code == 1, message
    assert "GramBuildError" in message
    assert "No space left on device" in message
    # Started again on the full disk, the plan says so before any work: a wrong request, not a failure.
    chaos.start()
    code, message = chaos.finish()
    assert code == 2, message
    assert "free some" in message
    filler.unlink()
    chaos.start()
    assert chaos.finish()[0] == 0
    chaos.check(reference)
