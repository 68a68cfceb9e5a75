"""Interrupt a job in this process, on a Ray that the run starts; prints what is left of it as JSON.

closing_driver.py FOLDER SETTING...

The interruption comes when holders of tiles and evaluators are at hand, and is kept, as a notebook keeps the last one
with all that its frames hold: nothing is closed only because nothing refers to it any more.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import ray

from advntk_dist.config import load_config
from advntk_dist.pipeline import stages
from advntk_dist.pipeline.run import run
from advntk_dist.progress import Display

here = psutil.Process()


def actors() -> list[str]:
    """Kinds of the Ray actors that live below this process; Ray's own agents are none."""
    lines = [" ".join(child.cmdline()) for child in here.children(recursive=True)]
    kinds = {line.removeprefix("ray::").partition(".")[0].strip() for line in lines if line.startswith("ray::")}
    return sorted(kind for kind in kinds if kind != "IDLE" and not kind.endswith("Agent"))


def main(folder: Path, settings: list[str]) -> None:
    """Interrupt the run before its examples, and look around."""
    children = here.children(recursive=True)
    at_work: list[str] = []

    def interrupted(_: Any) -> None:
        at_work.extend(actors())
        raise KeyboardInterrupt

    kept = None
    try:
        with patch.object(stages, "examples", interrupted):
            run(load_config("digits", settings), folder, display=Display(quiet=True))
    except KeyboardInterrupt as error:
        kept = error
    assert kept is not None
    left = [child for child in here.children(recursive=True) if child not in children]
    _, alive = psutil.wait_procs(left, timeout=10)
    print(
        json.dumps(
            {
                "at work": at_work,
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
