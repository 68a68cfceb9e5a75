"""No figures but where they are tested, and no Ray but where it is asked for."""

from __future__ import annotations

from tests.filled import no_ray as no_ray
from tests.undrawn import figures_are_undrawn as figures_are_undrawn
