"""Exact kernels of infinitely wide ReLU networks as GPU programs that keep pairs on chip through all layers."""

from advntk_dist.kernels.pallas.backend import PallasBackend

__all__ = ["PallasBackend"]
