"""What the tile loop asks of a stack of convolutions: its layers on one block of pairs, forward and back."""

from __future__ import annotations

from typing import Any, Protocol

import jax

from advntk_dist.kernels.xla.relu import Adjoint, Norms, PairState


class Stack(Protocol):
    """The convolutions and ReLUs of a network between the first convolution and the last ReLU.

    Pixels come first and pairs last: e and m are (H, W, pairs), norms are (relus, H, W, pairs) on the left and
    (relus, H, W, 1) on the right.
    """

    @property
    def relus(self) -> int:
        """ReLUs in all, the last one included."""
        ...

    @property
    def input_bias(self) -> float:
        """Variance of the bias of the first convolution."""
        ...

    @property
    def signed_end(self) -> bool:
        """Whether cosines before the last ReLU can be negative."""
        ...

    def variances(self, first: jax.Array) -> jax.Array:
        """Variances before every ReLU (relus, H, W, images), from those of the first convolution."""
        ...

    def distances(self, e: jax.Array, left: Norms, right: Norms) -> jax.Array:
        """e before the last ReLU, from e after the first convolution."""
        ...

    def forward(self, e: jax.Array, left: Norms, right: Norms) -> PairState:
        """Pairs before the last ReLU, from e after the first convolution (where m = 0)."""
        ...

    def record(self, e: jax.Array, left: Norms, right: Norms, tape: PairState) -> PairState:
        """As :meth:`forward`, but returns the pairs before every ReLU, written over ``tape``."""
        ...

    def shares(self, e: jax.Array) -> Any:
        """Zeros for the adjoints of the left variances, in the layout that :meth:`backward` adds to."""
        ...

    def in_order(self, q: Any) -> jax.Array:
        """The adjoints of the left variances as (relus, H, W, pairs)."""
        ...

    def backward(self, tape: PairState, left: Norms, right: Norms, last: Adjoint, q: Any) -> tuple[jax.Array, Any]:
        """Adjoint of the NNGP after the first convolution, and ``q`` with the adjoints of the left variances added.

        ``last`` holds the adjoints before the last ReLU.
        """
        ...
