"""Classifiers with scikit-learn's interface."""

from advntk_dist.estimators.adv_ntk import AdvNTKClassifier
from advntk_dist.estimators.ntk import NTKClassifier

__all__ = ["AdvNTKClassifier", "NTKClassifier"]
