"""Products Theta V with the Gram matrix: in memory, out of core through Dask, on a cluster, resident in its memory.

Names are imported when they are first used: an actor that holds tiles needs no dask arrays, and starts sooner.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advntk_dist.operators.base import GramOperator as GramOperator
    from advntk_dist.operators.choose import OperatorChoice as OperatorChoice
    from advntk_dist.operators.choose import as_operator as as_operator
    from advntk_dist.operators.choose import operator_for_store as operator_for_store
    from advntk_dist.operators.dask_on_ray import DaskOnRayOperator as DaskOnRayOperator
    from advntk_dist.operators.dense import DaskArrayOperator as DaskArrayOperator
    from advntk_dist.operators.dense import InMemoryOperator as InMemoryOperator
    from advntk_dist.operators.resident import ResidentOperator as ResidentOperator
    from advntk_dist.operators.tiled import TiledOperator as TiledOperator

_HOMES = {
    "DaskArrayOperator": "dense",
    "DaskOnRayOperator": "dask_on_ray",
    "GramOperator": "base",
    "InMemoryOperator": "dense",
    "OperatorChoice": "choose",
    "ResidentOperator": "resident",
    "TiledOperator": "tiled",
    "as_operator": "choose",
    "operator_for_store": "choose",
}

__all__ = [
    "DaskArrayOperator",
    "DaskOnRayOperator",
    "GramOperator",
    "InMemoryOperator",
    "OperatorChoice",
    "ResidentOperator",
    "TiledOperator",
    "as_operator",
    "operator_for_store",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
