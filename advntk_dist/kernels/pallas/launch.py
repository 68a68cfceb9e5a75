"""Programs on the GPU: how they are launched, and what is done where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from advntk_dist.errors import NetworkError

ELEMENTS_A_THREAD = 4
"""Of an array that a program works on: one load of 16 bytes in float32, and 64 registers for cnn-x."""
MEMORY = 2**28
"""Bytes at most that the programs of a launch have for themselves, all of them together."""
_MOST_WARPS = 16


@dataclass(frozen=True)
class Launch:
    """Where programs run.

    Attributes
    ----------
    interpret
        Run them as plain JAX, on any device, one program after the other: slow, and meant as a proof.
    """

    interpret: bool = False

    def require_device(self) -> None:
        """Refuse to go on without a GPU.

        Raises
        ------
        NetworkError
            If JAX computes on something else.
        """
        if not self.interpret and jax.default_backend() != "gpu":
            raise NetworkError(
                f"network.backend: pallas needs a GPU, and JAX computes on {jax.default_backend()} here; "
                "use backend auto or xla"
            )

    def barrier(self) -> None:
        """Wait, inside a program, until what its threads wrote can be read by all of them."""
        if not self.interpret:
            triton.debug_barrier()

    def __call__(
        self,
        kernel: Callable[..., None],
        *,
        grid: tuple[int, ...],
        inputs: Sequence[tuple[jax.Array, pl.BlockSpec]],
        outputs: Sequence[tuple[jax.ShapeDtypeStruct, pl.BlockSpec]],
        elements: int,
    ) -> list[jax.Array]:
        """Run ``kernel`` once a cell of the grid; ``elements`` is the size of the arrays that it works on."""
        parameters = triton.CompilerParams(num_warps=warps(elements), num_stages=1)
        call = pl.pallas_call(
            kernel,
            grid=grid,
            in_specs=[spec for _, spec in inputs],
            out_specs=[spec for _, spec in outputs],
            out_shape=[shape for shape, _ in outputs],
            interpret=self.interpret,
            compiler_params=parameters,
        )
        return list(call(*(array for array, _ in inputs)))


def warps(elements: int) -> int:
    """Warps of 32 threads for arrays of ``elements`` numbers, a power of two."""
    return max(1, min(_MOST_WARPS, elements // (32 * ELEMENTS_A_THREAD)))


def power_of_two(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << (n - 1).bit_length()


def block(shape: tuple[int, ...], *along: int) -> pl.BlockSpec:
    """The part of an array that one program sees: one place along its leading axes, the other axes whole.

    ``along`` names the axis of the grid that walks each leading axis; those vanish from what the program sees.
    """
    rest = shape[len(along) :]

    def place(*program: Any) -> tuple[Any, ...]:
        return (*(program[axis] for axis in along), *(jnp.int32(0) for _ in rest))

    return pl.BlockSpec((*(None for _ in along), *rest), place)


def loop(length: int, body: Callable[[jax.Array, Any], Any], state: Any) -> Any:
    """``fori_loop`` with a counter of 32 bits, also where JAX counts in 64."""
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(length), body, state)


def empty(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """An output."""
    return jax.ShapeDtypeStruct(shape, dtype)
