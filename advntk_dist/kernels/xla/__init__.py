"""Exact kernels of infinitely wide ReLU networks in plain JAX, with hand-written input gradients."""

from advntk_dist.kernels.xla.backend import XlaBackend

__all__ = ["XlaBackend"]
