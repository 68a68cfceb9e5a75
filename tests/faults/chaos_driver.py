"""Build one Gram store and write everything that happens to a file; the chaos suite runs and kills this program."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from advntk_dist.errors import AdvNTKError
from advntk_dist.gram.build import build_gram
from advntk_dist.gram.worker import Receipt
from advntk_dist.networks import network


def main() -> int:
    store, log, options = Path(sys.argv[1]), Path(sys.argv[2]), dict[str, Any](json.loads(sys.argv[3]))
    pause = options.pop("pause", 0.0)
    x = np.random.default_rng(0).integers(0, 256, (options.pop("n"), 8, 8, 1), dtype=np.uint8)
    with log.open("a", buffering=1) as file:

        def write(event: dict[str, Any]) -> None:
            file.write(json.dumps(event) + "\n")

        def progress(done: int, total: int, receipt: Receipt | None) -> None:
            if receipt is not None:
                time.sleep(pause)  # tiles this small would be over before a fault can strike
                write({"event": "tile", "tile": [receipt.i, receipt.j], "attempt": receipt.attempt, "done": done})

        write({"event": "start"})
        try:
            build_gram(network("mlp-2"), x, store=store, on_progress=progress, on_event=write, **options)
        except AdvNTKError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return error.exit_code
        write({"event": "end"})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
