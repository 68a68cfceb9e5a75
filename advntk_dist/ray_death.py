"""What is done where a service of Ray dies under this process; a command sets it before Ray is loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


def _warn(what: str) -> None:
    log.error("%s of Ray on this machine has died, and Ray ends this process", what)


handler: Callable[[str], None] = _warn
"""Called from a thread with the name of the service; the command line puts its own here, which says how to go on."""
