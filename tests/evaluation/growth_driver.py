"""Judge batches on a cluster that has no core at first, then one, then a GPU that is lost; prints what happened.

The GPU is one that only Ray believes in, and what is printed is JSON.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from advntk_dist.data.registry import load_dataset
from advntk_dist.distributed.worker import FAKE_GPUS
from advntk_dist.evaluation.evaluator import Batch
from advntk_dist.evaluation.remote import EvaluationPool
from advntk_dist.networks import network

if TYPE_CHECKING:
    from tests.several_nodes import several_nodes
else:
    from several_nodes import several_nodes

N, BATCHES, SIZE = 40, 240, 2


def slowly(predictor: Any, x: NDArray[Any], y: NDArray[Any], indices: NDArray[Any]) -> NDArray[Any]:
    """Who judged which image, and the guess; every batch takes a quarter of a second."""
    time.sleep(0.25)
    guesses = np.argmax(predictor.predict(x), axis=1)
    return np.column_stack([indices, guesses, np.full(len(y), os.getpid())]).astype(np.float64)


def main() -> None:
    data, net = load_dataset("digits"), network("mlp-2")
    x = data.x.astype(np.float32) / 255 - 0.5
    at = np.arange(BATCHES * SIZE) % len(x)
    events: list[dict[str, Any]] = []
    rows: list[NDArray[Any]] = []
    first = None
    os.environ[FAKE_GPUS] = "1"
    with several_nodes(1, num_cpus=0) as nodes:
        nodes.add_meanwhile(after=2.0)
        with EvaluationPool(net, x[:N], SIZE, address=nodes.address, on_event=events.append) as pool:
            c = np.random.default_rng(0).standard_normal((N, 10))
            batches = [Batch(np.arange(b * SIZE, (b + 1) * SIZE), slowly) for b in range(BATCHES)]
            for _, found in pool.evaluator(lambda: c, x[at], data.y[at]).map(batches):
                rows.append(found)
                if len(rows) == 1:
                    nodes.add_meanwhile(num_gpus=1)
                if first is None and len(nodes.joined) == 2:
                    name, joined = nodes.joined[1]
                    away = {e["pid"] for e in events if e["event"] == "evaluator_ready" and e["node"] == name}
                    if found[0, 2] in away:
                        first = time.time() - joined
                        nodes.lose(name)
        table = np.concatenate(rows)
    order = np.argsort(table[:, 0])
    same: dict[int, set[float]] = {}
    for image, guess, _ in table:
        same.setdefault(int(at[int(image)]), set()).add(guess)
    answer = {
        "each_once": bool(np.array_equal(table[order, 0], np.arange(BATCHES * SIZE))),
        "agree": all(len(guesses) == 1 for guesses in same.values()),
        "join_to_batch": first,
        "started": [e["gpu"] for e in events if e["event"] == "evaluator_started"],
        "lost": sum(e["event"] == "evaluator_lost" for e in events),
        "retired": [e["gpu"] for e in events if e["event"] == "evaluator_retired"],
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
