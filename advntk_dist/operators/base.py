"""What a solver needs of a Gram matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from advntk_dist import metrics


class GramOperator(ABC):
    """A symmetric (n, n) matrix known through products with blocks of vectors.

    Tiles may be float32; products are accumulated and returned in float64. Operators that hold Ray actors or a Ray
    session free them in :meth:`close`, or at the end of a ``with`` block.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.passes = 0
        """Products taken since the operator was made, each one pass over the matrix."""
        self.resources = ExitStack()
        """What is closed together with the operator, such as a Ray session that was started for it."""

    def matmat(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Theta v, (n, k) float64, for v (n, k) float64.

        Raises
        ------
        ValueError
            If v has another number of rows.
        FloatingPointError
            If the product is not finite: v is not, or a stored entry is NaN (never written).
        """
        if v.ndim != 2 or v.shape[0] != self.n:
            raise ValueError(f"the Gram matrix has {self.n} rows; got a block of shape {v.shape}")
        self.passes += 1
        metrics.count("advntk_passes")
        product = self._multiply(np.ascontiguousarray(v, dtype=np.float64))
        if not np.isfinite(product).all():
            raise FloatingPointError(
                "the product with the Gram matrix is not finite: an entry of the matrix or of the vectors is not; "
                "check the store with `advntk gram verify`"
            )
        return product

    @abstractmethod
    def _multiply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """The product itself."""

    @abstractmethod
    def diagonal_mean(self) -> float:
        """Mean of the diagonal: the scale of a relative ridge."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type that the entries were rounded to: its precision tells noise in the spectrum; float64 if not known."""
        return np.dtype(np.float64)

    @property
    @abstractmethod
    def description(self) -> str:
        """One line for logs: which operator this is, and what makes it cheap or expensive."""

    @property
    def held_bytes(self) -> int:
        """Memory that the matrix itself takes in this process, in bytes."""
        return 0

    def pass_bytes(self, columns: int) -> int:
        """Memory of this process that a product with so many columns takes beside argument and result, in bytes."""
        return 8 * self.n * columns

    def close(self) -> None:
        """End the processes and sessions that the operator started; closing twice is harmless."""
        self.resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def blas_threads(limit: int | None) -> Iterator[None]:
    """Give products of matrices at most so many threads; None leaves them as they are."""
    if limit is None:
        yield
        return
    with _libraries().limit(limits=limit, user_api="blas"):
        yield


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    # Looking for the libraries takes longer than a small product: once is enough, numpy's and scipy's are there.
    import scipy.linalg  # noqa: F401

    return ThreadpoolController()
