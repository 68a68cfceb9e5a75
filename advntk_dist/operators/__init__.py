"""Products Theta V with the Gram matrix: in memory, or out of core through Dask."""

from advntk_dist.operators.base import GramOperator
from advntk_dist.operators.choose import as_operator, operator_for_store
from advntk_dist.operators.dask_array import DaskArrayOperator
from advntk_dist.operators.memory import InMemoryOperator
from advntk_dist.operators.tiled import TiledOperator

__all__ = [
    "DaskArrayOperator",
    "GramOperator",
    "InMemoryOperator",
    "TiledOperator",
    "as_operator",
    "operator_for_store",
]
