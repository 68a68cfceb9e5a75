"""Outcomes of images, committed by spans as soon as all of one are known, and the seconds that they took."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import zarr
from numpy.typing import NDArray

from advntk_dist import metrics
from advntk_dist.evaluation.evaluator import Batch, Evaluator, Task
from advntk_dist.grid import spans
from advntk_dist.storage import Records


def counted(on_span: Callable[[int, bool], None]) -> Callable[[int, bool], None]:
    """The same, with the images of spans that are committed now among the attacked images of the metrics."""

    def told(images: int, fresh: bool) -> None:
        if fresh:
            metrics.count("advntk_attack_images", images)
        on_span(images, fresh)

    return told


class CommittedRows:
    """Rows (n, columns) of n images; what was committed before is there, the rest is NaN until it is filled in.

    Parameters
    ----------
    group, name
        Zarr group and array of the committed rows.
    n, columns
        Shape.
    span
        Images that are committed at once.
    on_span
        Called with the images of a span, and whether it was committed now or before.
    of
        Seal of the coefficients that the outcomes are of, as :class:`~advntk_dist.storage.records.Records` takes it.
    """

    def __init__(
        self,
        group: zarr.Group,
        name: str,
        n: int,
        columns: int,
        span: int,
        on_span: Callable[[int, bool], None],
        of: int = 0,
    ) -> None:
        self._records = Records(group, name, n, (columns,), span=span, of=of)
        self._span, self._on_span = span, on_span
        self.table = np.full((n, columns), np.nan)
        self._open: list[slice] = []
        for s in spans(n, span):
            found = self._records.read(s.start)
            if found is None:
                self._open.append(s)
            else:
                self.table[s] = found
                on_span(s.stop - s.start, False)

    @property
    def missing(self) -> NDArray[np.int64]:
        """Indices of the images that are in no committed span, ascending."""
        return np.array([i for s in self._open for i in range(s.start, s.stop)], dtype=np.int64)

    def fill(self, evaluator: Evaluator, indices: NDArray[np.int64], task: Task, columns: slice = slice(None)) -> None:
        """Let an evaluator judge images by a task, a span's number of them at a time, and commit what is known.

        Parameters
        ----------
        evaluator, task
            Where, and what is found out of the images; errors are those of the evaluator.
        indices
            Images (m,).
        columns
            The columns that the results fill; by default all.
        """
        for batch, found in evaluator.map(Batch(indices[s], task) for s in spans(len(indices), self._span)):
            self.table[batch.indices, columns] = found
            self.commit()

    def commit(self) -> None:
        """Write every span of which all rows are known, and which is not written yet."""
        whole = [s for s in self._open if np.isfinite(self.table[s]).all()]
        for s in whole:
            self._records.write(s.start, self.table[s])
            self._open.remove(s)
            self._on_span(s.stop - s.start, True)


class CommittedSeconds:
    """A clock that goes on where the last start of the same work has committed it.

    Parameters
    ----------
    group, name
        Zarr group and array of the committed number.

    Attributes
    ----------
    total
        Seconds up to the last commit, over all starts.
    """

    def __init__(self, group: zarr.Group, name: str) -> None:
        self._records = Records(group, name, 1, (1,))
        found = self._records.read(0)
        self.total = self._before = 0.0 if found is None else float(found[0, 0])
        self._started = time.monotonic()

    def commit(self) -> None:
        """Commit the time until now; a kill loses what follows the last commit, as it loses the work."""
        self.total = self._before + time.monotonic() - self._started
        self._records.write(0, np.array([[self.total]]))
