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

_PLUGINS = "jax._src.xla_bridge"
"""Logger of JAX that tells of plugins for devices."""

log = logging.getLogger(__name__)
_shown = False


def shown() -> bool:
    """Whether the libraries' own logs are wanted."""
    return _shown


def silence() -> None:
    """Errors alone: logs from that level on, no warnings. What the user has set in the environment stays."""
    global _shown
    _shown = False
    os.environ.setdefault(_XLA_LOGS, "2")
    logging.getLogger(_PLUGINS).addFilter(_plugin_in_a_line)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")


def _plugin_in_a_line(record: logging.LogRecord) -> bool:
    """Say in a line that a plugin for GPUs does not start, as without a driver, in place of JAX's traceback."""
    if not record.exc_info or record.exc_info[1] is None:
        return True
    log.warning("JAX's plugin for GPUs does not start (%s): no GPU is used here", record.exc_info[1])
    return False


def show() -> None:
    """Logs from INFO on, with time and source, on standard error; and each warning once."""
    global _shown
    _shown = True
    logging.getLogger(_PLUGINS).removeFilter(_plugin_in_a_line)
    os.environ[_XLA_LOGS] = "0"
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s: %(message)s")
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.INFO)
    warnings.simplefilter("default")
