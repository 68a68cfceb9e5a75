"""Attacks on kernel predictors, one file each, one interface."""

from advntk_dist.attacks.apgd import apgd, apgd_targeted
from advntk_dist.attacks.base import Attack, DifferentiablePredictor
from advntk_dist.attacks.fgsm import fgsm
from advntk_dist.attacks.geometry import perturbation_size
from advntk_dist.attacks.pgd import pgd
from advntk_dist.attacks.pgd_reference import pgd_reference
from advntk_dist.attacks.square import square

ATTACKS: dict[str, Attack] = {
    "pgd": pgd,
    "pgd-reference": pgd_reference,
    "fgsm": fgsm,
    "apgd": apgd,
    "apgd-targeted": apgd_targeted,
    "square": square,
}
"""Attacks by the names that configurations use."""

__all__ = [
    "ATTACKS",
    "Attack",
    "DifferentiablePredictor",
    "apgd",
    "apgd_targeted",
    "fgsm",
    "perturbation_size",
    "pgd",
    "pgd_reference",
    "square",
]
