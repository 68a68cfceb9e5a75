"""The backend "pallas": ReLU MLPs and CNNs as GPU programs, by one name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import jax

from advntk_dist.kernels.backend import KernelKind, Prepared
from advntk_dist.kernels.pallas.cnn import ConvolutionalTile
from advntk_dist.kernels.pallas.dense import MOST_RELUS, DenseTile
from advntk_dist.kernels.pallas.launch import Launch
from advntk_dist.spec import Family


@dataclass(frozen=True)
class PallasBackend:
    """Exact kernels of ReLU mlp-x and cnn-x (Fu & Wang 2024, section 6) on a GPU.

    Attributes
    ----------
    architecture
        "mlp" or "cnn".
    depth
        x of mlp-x (2 to 65) and cnn-x (at least 1).
    W_std, b_std
        Standard deviations of weights (> 0) and biases (>= 0) in the NTK parametrisation.
    interpret
        Run the programs as plain JAX on any device, slowly: for proofs. Without it tiles need a GPU.

    Raises
    ------
    ValueError
        If there is no such network.

    Notes
    -----
    Mathematics and conventions are those of :class:`advntk_dist.kernels.xla.XlaBackend`. The programs are written
    for Pallas' lowering to Triton, which compiles them for float64 too. JAX 0.11 and 0.12 have it and announce its
    end in favour of Mosaic GPU.
    """

    architecture: Family
    depth: int
    W_std: float
    b_std: float
    interpret: bool = False

    def __post_init__(self) -> None:
        known = {"mlp": 2 <= self.depth <= MOST_RELUS + 1, "cnn": self.depth >= 1}
        if not known.get(self.architecture, False):
            raise ValueError(
                f"no network {self.architecture}-{self.depth} in pallas: mlp-2 to mlp-{MOST_RELUS + 1}, "
                "cnn-1 and deeper"
            )
        if not (self.W_std > 0 and self.b_std >= 0):
            raise ValueError(f"W_std must be > 0 and b_std >= 0, got {self.W_std} and {self.b_std}")

    @property
    def name(self) -> str:
        """The name that is printed and recorded."""
        return "pallas"

    def prepare(self, x2: jax.Array) -> Prepared:
        """Images x2 (b2, H, W, C) and their norms before every ReLU."""
        return self._kernel.prepare(x2)

    def tile(self, x1: jax.Array, prepared: Prepared, kind: KernelKind) -> jax.Array:
        """Kernel values (b1, b2) of images x1 (b1, H, W, C)."""
        return self._kernel.tile(x1, prepared, kind)

    def tile_vjp(self, x1: jax.Array, prepared: Prepared, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """NTK tile (b1, b2), and d sum(weight * tile) / d x1, for a weight (b1, b2)."""
        return self._kernel.tile_vjp(x1, prepared, weight)

    @cached_property
    def _kernel(self) -> DenseTile | ConvolutionalTile:
        launch = Launch(self.interpret)
        if self.architecture == "mlp":
            return DenseTile(self.depth - 1, self.W_std, self.b_std, launch)
        return ConvolutionalTile(self.depth, self.W_std, self.b_std, launch)
