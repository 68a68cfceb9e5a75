"""Files that land at their place whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from advntk_dist.storage.location import Location


def write_whole(path: Location, content: bytes) -> None:
    """Write a file in one step: readers see the old one or the new one, never a part, and a power cut changes nothing.

    Raises
    ------
    OSError
        If a local folder cannot be written.
    StoreError
        If an object store refuses, or does not answer.
    """
    if not isinstance(path, Path):
        path.write_bytes(content)
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
