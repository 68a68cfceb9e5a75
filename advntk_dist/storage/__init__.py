"""Where a run lies, on a disk or in an object store, and how its files, checkpoints and locks are kept there.

The names below are imported when they are first used: the command line asks for places before anything heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advntk_dist.storage.paths import Location as Location
    from advntk_dist.storage.paths import location as location
    from advntk_dist.storage.records import Records as Records
    from advntk_dist.storage.records import guarded_group as guarded_group

_HOMES = {"Location": "paths", "location": "paths", "Records": "records", "guarded_group": "records"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
