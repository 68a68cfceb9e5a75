"""Run a job in this process, as a notebook does, on a Ray that the run starts; prints what is left of it as JSON.

closing_driver.py FOLDER SETTING...
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import ray

from advntk_dist.config import load_config
from advntk_dist.pipeline.run import run
from advntk_dist.progress import Display

if TYPE_CHECKING:
    from tests.undrawn import undrawn
else:
    from undrawn import undrawn


def main(folder: Path, settings: list[str]) -> None:
    """Run, and look around."""
    here = psutil.Process()
    children = here.children(recursive=True)
    with undrawn():
        run(load_config("digits", settings), folder, display=Display(quiet=True))
    events = [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]
    left = [child for child in here.children(recursive=True) if child not in children]
    _, alive = psutil.wait_procs(left, timeout=10)
    print(
        json.dumps(
            {
                "started": sorted({e for e in events if e in ("worker_started", "evaluator_started")}),
                "ray": ray.is_initialized(),
                "processes": [child.name() for child in alive],
                "threads": [t.name for t in threading.enumerate() if t.name.startswith(("advntk", "ray watch"))],
                "files": [file.path for file in here.open_files() if file.path.startswith(str(folder))],
                "scratch": (folder / "scratch").exists(),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
