"""The only import of neural-tangents, made to work on current JAX.

Release 0.6.5 is the last one. Two of its modules do not import any more: ``experimental`` wants TensorFlow,
``_src.empirical`` wants JAX internals that are gone. Nothing here uses either (finite-width kernels are
outside the analytic path), so inert placeholders take their places in ``sys.modules``; touching one for
real raises an error that says why.
"""

from __future__ import annotations

import sys
import types
import warnings

_BROKEN = ("neural_tangents.experimental", "neural_tangents._src.empirical")


class _Placeholder(types.ModuleType):
    """Stands for a module that cannot be imported: attributes resolve, calls explain."""

    def __getattr__(self, name: str) -> _Placeholder:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Placeholder(f"{self.__name__}.{name}")

    def __call__(self, *_: object, **__: object) -> None:
        raise ImportError(f"{self.__name__} does not work with current JAX; only the analytic kernels are available")


for _name in _BROKEN:
    sys.modules.setdefault(_name, _Placeholder(_name))

import neural_tangents  # noqa: E402
from neural_tangents import stax  # noqa: E402

# Said at every call of a residual network; our blocks do have a convolution in the branch.
warnings.filterwarnings("ignore", message="`FanIn` layers assume independent", category=UserWarning)

VERSION: str = neural_tangents.__version__

__all__ = ["VERSION", "stax"]
