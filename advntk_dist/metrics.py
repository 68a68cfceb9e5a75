"""What a cluster's Prometheus sees of the work: counters through Ray, where Ray is in use, and nothing elsewhere.

Ray exports them with its own prefix, and counters with the usual suffix: ``advntk_tiles`` becomes
``ray_advntk_tiles_total``.
"""

from __future__ import annotations

import sys
from typing import Any

COUNTERS = {
    "advntk_tiles": "Tiles of Gram matrices computed and committed",
    "advntk_tile_bytes": "Bytes of these tiles as they are stored",
    "advntk_passes": "Products with a Gram matrix, each one pass over it",
    "advntk_attack_images": "Images attacked and committed",
    "advntk_retries": "Tiles handed out again, for whatever reason",
    "advntk_store_retries": "Requests to object stores that were made again",
}
"""Name and description of each counter."""

_made: dict[tuple[str, str], Any] = {}


def count(name: str, amount: float = 1) -> None:
    """Add to one of :data:`COUNTERS`; costs next to nothing, and does nothing, while Ray is not in use."""
    ray = sys.modules.get("ray")
    if ray is None or amount <= 0 or not ray.is_initialized():
        return
    from ray.util.metrics import Counter

    # A counter belongs to the Ray that it was made in, and a process may use several, one after the other.
    key = (ray.get_runtime_context().get_job_id(), name)
    if key not in _made:
        _made[key] = Counter(name, description=COUNTERS[name])
    _made[key].inc(amount)
