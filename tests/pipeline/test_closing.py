"""What a run opened it closes: nothing of it is left in the process that ran it, as in a notebook."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from advntk_dist.dynamics import ATDynamics
from advntk_dist.errors import SolverError
from advntk_dist.operators import GramOperator
from advntk_dist.pipeline.run import run
from advntk_dist.predictor import KernelPredictor
from advntk_dist.progress import Display
from tests.pipeline.conftest import SMALL, small

QUIET = Display(quiet=True)
DRIVER = Path(__file__).parent / "closing_driver.py"


class Left:
    """What this process has open; of files and mappings those below a folder."""

    def __init__(self, folder: Path) -> None:
        gc.collect()
        here = psutil.Process()
        self.threads = here.num_threads()
        self.named = sorted(thread.name for thread in threading.enumerate())
        self.children = sorted(child.pid for child in here.children(recursive=True))
        self.files = [file.path for file in here.open_files() if file.path.startswith(str(folder))]
        mapped = here.memory_maps() if hasattr(here, "memory_maps") else []
        self.maps = [held.path for held in mapped if held.path.startswith(str(folder))]
        self.descriptors = here.num_fds()
        solvers = (ATDynamics, GramOperator, KernelPredictor)  # what holds matrices and images
        self.memory = sorted(type(held).__name__ for held in gc.get_objects() if isinstance(held, solvers))

    def more_than(self, before: Left) -> dict[str, object]:
        """What is open now and was not open before; servers and processes of other tests may have ended between."""
        more: dict[str, object] = {}
        for name, now in vars(self).items():
            then = vars(before)[name]
            new = max(now - then, 0) if isinstance(now, int) else sorted((Counter(now) - Counter(then)).elements())
            if new:
                more[name] = new
        return more


@pytest.mark.parametrize("operator", ["memory", "threads"])
def test_a_run_that_fails_or_finishes_leaves_nothing_open(
    operator: str, filled: Path, tmp_path: Path, figures_are_undrawn: None
) -> None:
    config = small(f"solver.operator={operator}")
    hopeless = small(f"solver.operator={operator}", "solver.max_passes=1")
    run(config, shutil.copytree(filled, tmp_path / "warm"), display=QUIET)  # XLA, BLAS and zarr start their threads
    for ends in ("fails", "finishes"):
        before = Left(tmp_path)
        folder = shutil.copytree(filled, tmp_path / ends)
        if ends == "fails":
            with pytest.raises(SolverError, match="limit on passes"):
                run(hopeless, folder, display=QUIET)
        else:
            run(config, folder, display=QUIET)
        ended = time.monotonic() + 20  # threads that were told to end may take a moment
        while (more := (after := Left(tmp_path)).more_than(before)) and time.monotonic() < ended:
            time.sleep(0.2)
        assert more == {}, ends
        assert after.files == after.maps == []
        assert not (folder / "scratch").exists()


def test_an_interrupted_run_ends_the_ray_and_the_actors_that_it_started(
    filled: Path, drive: Callable[..., str], tmp_path: Path
) -> None:
    folder = shutil.copytree(filled, tmp_path / "run")
    actors = ("evaluation.workers=1", "solver.operator=resident")
    left = json.loads(drive(DRIVER, str(folder), *SMALL, *actors, timeout=300))
    assert len(left.pop("at work")) == 2, "evaluators and holders of tiles"
    assert left == {"ray": False, "processes": [], "threads": [], "files": [], "scratch": False}
