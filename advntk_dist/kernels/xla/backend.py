"""The backend "xla": ReLU MLPs, CNNs and ResNets under one name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax

from advntk_dist.kernels.backend import KernelKind, Prepared
from advntk_dist.kernels.combine import combine, combine_vjp
from advntk_dist.kernels.xla.cnn import CNNStack
from advntk_dist.kernels.xla.convolutional import ConvolutionalTile
from advntk_dist.kernels.xla.dense import DenseTile
from advntk_dist.kernels.xla.residual import ResidualStack
from advntk_dist.spec import RESNET_STAGES, Family


@dataclass(frozen=True)
class XlaBackend:
    """Exact kernels of ReLU mlp-x, cnn-x, resnet-18 and -34 (Fu & Wang 2024, section 6), without neural-tangents.

    Attributes
    ----------
    architecture
        "mlp", "cnn" or "resnet".
    depth
        x of mlp-x (at least 2) and cnn-x (at least 1); 18 or 34.
    W_std, b_std
        Standard deviations of weights (> 0) and biases (>= 0) in the NTK parametrisation.

    Raises
    ------
    ValueError
        If there is no such network.

    Notes
    -----
    Equal images have the closed form of an image with itself, to 1e-6 in float32. Of nearly equal ones MLPs are off by
    what their cosine is rounded to (:mod:`advntk_dist.kernels.xla.chain` has the bound); convolutional networks keep
    their digits, as they carry distances. Gradients are finite everywhere. Where two images (or, for convolutions, two
    patches) coincide the NTK has a kink, and the gradient is the mean of the slopes on its two sides; where the
    variance of an image or a patch vanishes (all zero, b_std = 0) its angle to everything counts as a constant pi / 2,
    as in neural-tangents.
    """

    architecture: Family
    depth: int
    W_std: float
    b_std: float

    def __post_init__(self) -> None:
        known = {"mlp": self.depth >= 2, "cnn": self.depth >= 1, "resnet": self.depth in RESNET_STAGES}
        if not known.get(self.architecture, False):
            raise ValueError(
                f"no network {self.architecture}-{self.depth}: mlp-2 and deeper, cnn-1 and deeper, resnet-18, resnet-34"
            )
        if not (self.W_std > 0 and self.b_std >= 0):
            raise ValueError(f"W_std must be > 0 and b_std >= 0, got {self.W_std} and {self.b_std}")

    @property
    def name(self) -> str:
        """The name that is printed and recorded."""
        return "xla"

    def prepare(self, x2: jax.Array) -> Prepared:
        """Images x2 (b2, H, W, C) and their norms before every ReLU."""
        return self._kernel.prepare(x2)

    def tile(self, x1: jax.Array, prepared: Prepared, kind: KernelKind) -> jax.Array:
        """Kernel values (b1, b2) of images x1 (b1, H, W, C)."""
        return self._kernel.tile(x1, prepared, kind)

    def tile_vjp(self, x1: jax.Array, prepared: Prepared, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """NTK tile (b1, b2), and d sum(weight * tile) / d x1, for a weight (b1, b2)."""
        return self._kernel.tile_vjp(x1, prepared, weight)

    def combine(self, x1: jax.Array, prepared: Prepared, coefficients: jax.Array) -> tuple[jax.Array, Any]:
        """NTK tile @ coefficients in float64, (b1, k); MLPs leave their inner products for the gradient."""
        return combine(self._kernel, x1, prepared, coefficients)

    def combine_vjp(
        self, x1: jax.Array, prepared: Prepared, coefficients: jax.Array, cotangent: jax.Array, residual: Any
    ) -> jax.Array:
        """d sum(cotangent * (tile @ coefficients)) / d x1, for a cotangent (b1, k) in float64."""
        return combine_vjp(self._kernel, x1, prepared, coefficients, cotangent, residual)

    def combine_jacobian(
        self, x1: jax.Array, prepared: Prepared, coefficients: jax.Array, entries: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """NTK tile @ coefficients in float64, (b1, k), and its derivatives in the flat x1 or some of their pixels."""
        return self._kernel.combine_jacobian(x1, prepared, coefficients, entries)

    @cached_property
    def _kernel(self) -> DenseTile | ConvolutionalTile:
        if self.architecture == "mlp":
            return DenseTile(self.depth, self.W_std, self.b_std)
        gain, bias = self.W_std**2 / 18, self.b_std**2
        stack = CNNStack(self.depth, gain, bias) if self.architecture == "cnn" else ResidualStack(self.depth, gain)
        return ConvolutionalTile(stack, self.W_std, self.b_std)
