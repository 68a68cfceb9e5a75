"""Comparing a finished Gram matrix with float64: a sample of its tiles, and the ends of its spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigvalsh

from advntk_dist.data.dataset import fingerprint_images
from advntk_dist.environment import usable_cores
from advntk_dist.errors import StoreDamagedError, StoreMismatchError
from advntk_dist.gram.store import GramStore
from advntk_dist.gram.view import dask_view
from advntk_dist.kernels.backend import KernelKind
from advntk_dist.kernels.nonfinite import compute_images
from advntk_dist.networks import from_spec
from advntk_dist.operators.tiled import TiledOperator
from advntk_dist.solve.lanczos import grow_basis
from advntk_dist.spec import NetworkSpec

DENSE = 4096
"""Matrices of up to this many rows are decomposed whole; larger ones by Lanczos steps."""

LIMITS = {"float32": 1e-3, "float64": 1e-6}
"""Largest relative difference from float64 that passes for rounding, by the dtype of a store.

It is that of images which are nearly equal: see the bound in :mod:`advntk_dist.kernels.xla.chain`. Others have 1e-6."""


@dataclass(frozen=True)
class AuditReport:
    """What a comparison with float64 found, for one kernel of a store.

    Attributes
    ----------
    kind
        Kernel that was compared, "ntk" or "nngp".
    seed
        Seed of the sample of tiles.
    tiles
        Places of the tiles that were computed again.
    largest_difference
        Largest |stored - float64| over the largest |float64| value of its tile.
    worst
        Row and column of the matrix with that difference.
    limit
        Largest relative difference that passes for rounding.
    smallest_eigenvalue, largest_eigenvalue
        Estimates; Lanczos bounds the smallest from above and the largest from below. None for a rectangular store.
    eigenvalue_noise
        How far rounding moves eigenvalues: 2 s sqrt(n), the norm of a random symmetric matrix whose entries deviate
        by s, the root mean square of stored - float64.
    passes
        Lanczos steps taken; 0 where the whole matrix was decomposed.
    """

    kind: str
    seed: int
    tiles: tuple[tuple[int, int], ...]
    largest_difference: float
    worst: tuple[int, int]
    limit: float
    smallest_eigenvalue: float | None
    largest_eigenvalue: float | None
    eigenvalue_noise: float
    passes: int

    @property
    def within_limit(self) -> bool:
        """Whether the stored values are those of float64, but for rounding."""
        return self.largest_difference <= self.limit

    def raise_if_wrong(self, where: object) -> None:
        """Raise StoreDamagedError naming the entry that is off by the most, if it is by more than rounding (exit 3)."""
        if not self.within_limit:
            raise StoreDamagedError(
                f"{where}: values of {self.kind} differ from float64 by up to {self.largest_difference:.2g} of the "
                f"largest of their tile, at {self.worst}, and rounding explains {self.limit:.2g}; build the matrix "
                "anew with another --out, or give a larger --limit where the images there are almost the same"
            )

    @property
    def above_noise(self) -> bool:
        """Whether the smallest eigenvalue is larger than what rounding does to it."""
        return self.smallest_eigenvalue is None or self.smallest_eigenvalue > self.eigenvalue_noise

    def __str__(self) -> str:
        tiles = f"{len(self.tiles)} tiles of {self.kind} computed again in float64 (seed {self.seed})"
        side = "within" if self.within_limit else "NOT within"
        text = (
            f"{tiles}: largest relative difference {self.largest_difference:.2g}, at {self.worst}, {side} the limit of "
            f"{self.limit:.2g}"
        )
        if self.smallest_eigenvalue is None:
            return text
        how = f"at most {self.smallest_eigenvalue:.3g} after {self.passes} Lanczos steps"
        smallest = f"{self.smallest_eigenvalue:.3g}" if not self.passes else how
        side = "above" if self.above_noise else "NOT above"
        return f"{text}\nsmallest eigenvalue {smallest}, {side} the rounding noise of {self.eigenvalue_noise:.2g}"


def audit_gram(
    store: GramStore,
    x: ArrayLike,
    *,
    columns: ArrayLike | None = None,
    kind: KernelKind = "ntk",
    tiles: int = 4,
    seed: int = 0,
    passes: int = 20,
    limit: float | None = None,
) -> AuditReport:
    """Compute a seeded sample of tiles again in float64, and estimate the ends of the spectrum.

    Parameters
    ----------
    store
        A complete store.
    x, columns
        The images it was built from, raw as they were given then.
    kind
        Kernel to compare, "ntk" or "nngp".
    tiles
        Number of tiles to compute again, one on the diagonal of a symmetric store among them.
    seed
        Seed of the sample of tiles and of the first Lanczos vector.
    passes
        Lanczos steps, each one pass over the store; none for up to ``DENSE`` rows.
    limit
        Largest relative difference that passes for rounding; that of the store's dtype in ``LIMITS`` by default.

    Raises
    ------
    StoreMismatchError
        If the images are not those of the store.
    StoreIncompleteError, StoreDamagedError
        If tiles are missing or damaged.
    """
    store.require_complete()
    raw = [np.asarray(part) for part in (x, columns) if part is not None]
    for field, part in zip(("images", "columns"), raw, strict=False):
        found = fingerprint_images(part)
        if found != store.fingerprint[field]:
            raise StoreMismatchError(str(store.path), field, store.fingerprint[field], found)
    rows, cols = raw[0], raw[-1]
    generator = np.random.default_rng(seed)
    places = [(t.i, t.j) for t in store.grid]
    chosen = {places[k] for k in generator.permutation(len(places))[:tiles]}
    if store.symmetric and not any(i == j for i, j in chosen):
        chosen = {*sorted(chosen)[1:], (int(generator.integers(store.grid.shape[0])),) * 2}
    kernel = from_spec(NetworkSpec(**store.network)).tile_kernel
    largest, worst, squares, count = 0.0, (0, 0), 0.0, 0
    for i, j in sorted(chosen):
        t = store.grid.at(i, j)
        exact = kernel.matrices(
            compute_images(rows[t.rows], store.tile, "float64"),
            compute_images(cols[t.cols], store.tile, "float64"),
            (kind,),
            symmetric=store.symmetric and t.on_diagonal,
            tile=store.tile,
        )[kind]
        difference = np.abs(store.read_tile(kind, i, j) - exact)
        squares, count = squares + float((difference**2).sum()), count + difference.size
        relative = difference.max() / np.abs(exact).max()
        if relative >= largest:
            row, col = np.unravel_index(int(difference.argmax()), difference.shape)
            largest, worst = float(relative), (t.row_start + int(row), t.col_start + int(col))
    low, high, steps = _spectrum(store, kind, generator, passes) if store.symmetric else (None, None, 0)
    noise = 2 * np.sqrt(squares / count) * np.sqrt(store.n)
    most = LIMITS[store.dtype.name] if limit is None else limit
    return AuditReport(kind, seed, tuple(sorted(chosen)), largest, worst, most, low, high, float(noise), steps)


def _spectrum(store: GramStore, kind: str, generator: np.random.Generator, passes: int) -> tuple[float, float, int]:
    """The smallest and the largest eigenvalue, or their estimates, and the Lanczos steps that they took."""
    if store.n <= DENSE:
        eigenvalues = eigvalsh(np.asarray(dask_view(store, kind), dtype=np.float64))
        return float(eigenvalues[0]), float(eigenvalues[-1]), 0
    with TiledOperator(store, kind=kind, threads=usable_cores()) as operator:
        start = generator.normal(size=(store.n, 1))
        # The spectrum alone is wanted: no error is measured, so that the basis grows until the passes are used up.
        basis = grow_basis(
            operator.matmat,
            np.ones(store.n),
            start,
            lambda _: (np.inf, 0.0),
            tolerance=0.0,
            max_passes=passes,
            keep_image=False,
        )
    largest = float(basis.ritz.max())
    smallest = basis.smallest_ritz * largest if basis.smallest_ritz < 0 else float(basis.ritz.min())
    return smallest, largest, basis.passes
