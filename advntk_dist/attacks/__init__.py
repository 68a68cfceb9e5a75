"""Attacks on kernel predictors, one file each, one interface."""

from advntk_dist.attacks.base import Attack, DifferentiablePredictor, perturbation_size
from advntk_dist.attacks.pgd import pgd
from advntk_dist.attacks.reference import pgd_reference

ATTACKS: dict[str, Attack] = {"pgd": pgd, "pgd-reference": pgd_reference}
"""Attacks by the names that configurations use."""

__all__ = ["ATTACKS", "Attack", "DifferentiablePredictor", "perturbation_size", "pgd", "pgd_reference"]
