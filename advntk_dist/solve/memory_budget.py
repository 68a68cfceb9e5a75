"""Where the solver's memory goes, known before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from advntk_dist.errors import RequestError
from advntk_dist.text import size

BLOCKS = 16
"""Blocks (n, k) that a solve holds at once at its worst, beside its basis: targets, iterates, products, results."""

SKETCH_COPIES = 8
"""Blocks (n, rank) that making a Nystrom preconditioner holds at its worst."""

MAX_RANK = 300
"""Rank of the Nystrom preconditioner, at most."""

_WORK_BYTES = 64 * 2**20
_LEAST_SLABS = 4
_SMALL_SHARE = 0.5
_SMALL_COPIES = 12
"""Share of a basis's memory for the projected matrix, and the dense matrices of its size that are alive at once."""


class MatrixMemory(Protocol):
    """What a Gram matrix takes of the memory; every operator of :mod:`advntk_dist.operators` has these."""

    n: int

    @property
    def held_bytes(self) -> int:
        """Bytes of the matrix that are held in this process's memory."""
        ...

    @property
    def description(self) -> str:
        """One line for messages."""
        ...

    def pass_bytes(self, k: int) -> int:
        """Bytes that a product with k vectors takes."""
        ...


@dataclass(frozen=True)
class SolverPlan:
    """Memory of a solve, in bytes; a limit of None means that there is none.

    Attributes
    ----------
    held
        The matrix, where it is held.
    fixed
        Blocks of vectors, and what a product takes.
    basis
        Columns in memory of each of two Krylov bases (of coefficients and of the adjoint); more go to disk.
    max_columns
        Columns of a basis, in memory and on disk: the projected matrix and its eigenvectors are dense.
    rank
        Rank of the preconditioner at t = infinity.
    """

    held: int
    fixed: int
    basis: int | None
    max_columns: int | None
    rank: int

    def work_rows(self, columns: int) -> int:
        """Rows of two bases with so many columns together that may be copied at once."""
        nbytes = _WORK_BYTES if self.basis is None else min(_WORK_BYTES, self.basis // 8)
        return max(1, nbytes // (4 * 8 * max(1, columns)))

    @property
    def description(self) -> str:
        """One line for logs."""
        if self.basis is None:
            return "solver memory: no limit"
        return (
            f"solver memory: matrix {size(self.held)}, vectors and products {size(self.fixed)}; the two Krylov bases "
            f"may grow to {size(self.basis)} each before they go to disk; preconditioner of rank {self.rank}"
        )


def plan_solver(operator: MatrixMemory, k: int, memory: int | None) -> SolverPlan:
    """Divide ``memory`` bytes among the parts of a solve with k right-hand sides.

    Raises
    ------
    RequestError
        If it is too little for any solve; the message gives what is enough.
    """
    n = operator.n
    most = min(MAX_RANK, n // 4)
    if memory is None:
        return SolverPlan(operator.held_bytes, 0, None, None, most)
    block = 8 * n * k
    held, fixed = operator.held_bytes, BLOCKS * block + operator.pass_bytes(k)
    least = 2 * _LEAST_SLABS * block
    share = (memory - held - fixed) // 2
    if share < least:
        raise RequestError(
            f"solver.memory: {size(memory)} is too little for n = {n} and {k} classes: the matrix takes {size(held)} "
            f"({operator.description}), vectors and products {size(fixed)}, and two Krylov bases at least "
            f"{size(2 * least)}; raise it to {size(held + fixed + 2 * least)} or more"
        )
    small = int(_SMALL_SHARE * share)
    # The basis of coefficients may be alive while the preconditioner is made in the place of the other one.
    rank = most
    while rank > 0 and SKETCH_COPIES * 8 * n * rank + operator.pass_bytes(rank) > share:
        rank -= max(1, rank // 20)
    return SolverPlan(
        held, fixed, share - small, max(2 * k, int((small / (8 * _SMALL_COPIES)) ** 0.5)), rank if rank >= 10 else 0
    )
