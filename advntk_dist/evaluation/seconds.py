"""Time that a piece of work has taken over all its starts, committed beside what it has done."""

from __future__ import annotations

import time

import numpy as np
import zarr

from advntk_dist.storage import Records


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
