"""Adv-NTK: learning one effective training time per sample."""

from advntk_dist.training.adv_ntk import StepRecord, TrainingRun, train_adv_ntk

__all__ = ["StepRecord", "TrainingRun", "train_adv_ntk"]
