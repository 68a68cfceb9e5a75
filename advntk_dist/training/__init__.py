"""Adv-NTK: learning one effective training time per sample."""

from advntk_dist.training.cross_fit import CrossFitRecipe
from advntk_dist.training.loop import StepRecord, TrainingRun, train_adv_ntk
from advntk_dist.training.recipes import PaperRecipe

__all__ = ["CrossFitRecipe", "PaperRecipe", "StepRecord", "TrainingRun", "train_adv_ntk"]
