"""What Ray, JAX and other libraries say of themselves: kept out of the way by default, all of it on request.

Each library has its own switch; nothing is cut out of standard error, so that what has no switch, above all a crash, is
still seen. To be called before Ray and JAX are imported, as they read these settings then.
"""

from __future__ import annotations

import logging
import os
import warnings

LIBRARIES = ("ray", "jax", "jaxlib", "neural_tangents", "dask", "zarr")
"""Whose logs and warnings these are."""

_XLA_LOGS = "TF_CPP_MIN_LOG_LEVEL"
"""0 shows all that XLA's C++ code says, 2 errors alone."""

_shown = False


def shown() -> bool:
    """Whether the libraries' own logs are wanted."""
    return _shown


def silence() -> None:
    """Errors alone: logs from that level on, no warnings. What the user has set in the environment stays."""
    global _shown
    _shown = False
    os.environ.setdefault(_XLA_LOGS, "2")
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")


def show() -> None:
    """Logs from INFO on, with time and source, on standard error; and each warning once."""
    global _shown
    _shown = True
    os.environ[_XLA_LOGS] = "0"
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s: %(message)s")
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.INFO)
    warnings.simplefilter("default")
