"""Clean and robust accuracy, batch by committed batch."""

from advntk_dist.evaluation.accuracy import Accuracy, MethodResult
from advntk_dist.evaluation.evaluate import evaluate

__all__ = ["Accuracy", "MethodResult", "evaluate"]
