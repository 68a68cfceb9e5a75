"""Clean and robust accuracy, batch by committed batch."""

from advntk_dist.evaluation.statistics import Accuracy, MethodResult

__all__ = ["Accuracy", "MethodResult"]
