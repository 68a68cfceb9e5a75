"""Reads the pickles of CIFAR's python layout without running anything that they ask for.

A pickle may name any importable object and call it. These files need four names to build one array of bytes,
and each is answered here by an inert stand-in: NumPy's own unpickling is never reached, the stand-ins cannot
be changed by the pickle, and any other name is refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from typing import NoReturn

import numpy as np

from advntk_dist.data.files import reason
from advntk_dist.errors import DatasetError

_INTEGER = re.compile(r"[|<>=]?[iu][1248]")


def load_pickled_arrays(content: bytes, where: str) -> dict[str, object]:
    """Decode one file of CIFAR's python layout.

    Parameters
    ----------
    content
        The whole file: a pickled dict of integer arrays, lists, numbers and strings, from Python 2 or 3.
    where
        The file's name, for messages.

    Returns
    -------
    dict
        Keys as str; integer arrays as read-only numpy arrays, everything else as the pickle has it (Python 2
        strings as bytes).

    Raises
    ------
    DatasetError
        If the pickle names any other global, is damaged, or is not such a dict.
    """
    stream = io.BytesIO(content)
    try:
        _check_memo(content)
        loaded = _Unpickler(stream, where).load()
        if not isinstance(loaded, dict):
            raise pickle.UnpicklingError(f"holds a {type(loaded).__name__} where a dict belongs")
        if rest := len(content) - stream.tell():
            raise pickle.UnpicklingError(f"{rest} bytes follow the end of its data")
        return {_text(key): item.array if isinstance(item, _Array) else item for key, item in loaded.items()}
    except DatasetError:
        raise
    except Exception as error:
        # Damaged opcodes fail in any way that Python's own types can fail; each means the same to the reader.
        raise DatasetError(
            f"{where}: not a readable CIFAR python batch ({reason(error)}); "
            "it is cut short, damaged or of another format, get it again"
        ) from error


def _check_memo(content: bytes) -> None:
    """Refuse memo numbers that only damage explains: the C unpickler makes a table of that many entries."""
    for opcode, argument, _ in pickletools.genops(content):
        puts = opcode.name in ("PUT", "BINPUT", "LONG_BINPUT")
        if puts and isinstance(argument, int) and argument > len(content):
            raise pickle.UnpicklingError(f"memo number {argument} is beyond the file")


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, where: str) -> None:
        super().__init__(stream, encoding="bytes")
        self._where = where

    def find_class(self, module_name: str, global_name: str, /) -> object:
        stand_in = _ADMITTED.get((module_name, global_name))
        if stand_in is None:
            asked = f"{module_name}.{global_name}"[:120]
            raise DatasetError(
                f"{self._where}: its pickle asks for {asked!r}, which CIFAR's files never need; "
                "nothing was run, do not trust this file and get it from the publisher"
            )
        return stand_in


class _StandIn:
    """Answers for a global. ``__setstate__`` is here so that a pickle cannot write attributes into it."""

    __slots__ = ()

    def __setstate__(self, state: object) -> NoReturn:
        raise pickle.UnpicklingError("a global cannot be given a state")


class _Ndarray(_StandIn):
    """``numpy.ndarray``: only a name to hand to ``_reconstruct``."""

    __slots__ = ()


class _Reconstruct(_StandIn):
    """``numpy.core.multiarray._reconstruct``: an empty array, to be filled by its state."""

    __slots__ = ()

    def __call__(self, kind: object, shape: object, typecode: object) -> _Array:
        if not isinstance(kind, _Ndarray) or shape != (0,) or typecode not in ("b", b"b"):
            raise pickle.UnpicklingError("an array is built in an unknown way")
        return _Array()


class _MakeDtype(_StandIn):
    """``numpy.dtype`` for plain integers; the arguments after the code say nothing more."""

    __slots__ = ()

    def __call__(self, code: object, *_: object) -> _Dtype:
        text = _text(code)
        if not _INTEGER.fullmatch(text):
            raise pickle.UnpicklingError(f"dtype {text[:40]!r} is not a plain integer")
        return _Dtype(text)


class _Encode(_StandIn):
    """``_codecs.encode``: how protocols below 3 carry bytes from Python 3."""

    __slots__ = ()

    def __call__(self, text: object, codec: object) -> bytes:
        if not isinstance(text, str) or codec not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError("bytes are encoded in an unknown way")
        return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),  # NumPy 1
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),  # NumPy 2
    ("numpy", "ndarray"): _Ndarray(),
    ("numpy", "dtype"): _MakeDtype(),
    ("_codecs", "encode"): _Encode(),
}


class _Dtype:
    """An integer dtype; its state holds the byte order and nothing else of use."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        order = _text(state[1])
        if order not in ("|", "<", ">", "=") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("a dtype has more than a byte order")
        self.dtype = self.dtype.newbyteorder(order)  # type: ignore[arg-type]  # checked one line above


class _Array:
    """An integer array, known once its state (version, shape, dtype, column order, bytes) arrives."""

    __slots__ = ("array",)

    array: np.ndarray

    def __setstate__(self, state: tuple[object, object, object, object, object]) -> None:
        _, shape, kind, columns_first, raw = state
        if not isinstance(kind, _Dtype) or not isinstance(raw, bytes) or not isinstance(shape, tuple):
            raise pickle.UnpicklingError("an array is not plain bytes with a shape")
        if not all(isinstance(length, int) and length >= 0 for length in shape):
            raise pickle.UnpicklingError("an array has an impossible shape")
        self.array = np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if columns_first else "C")


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, str):
        return value
    raise pickle.UnpicklingError(f"a {type(value).__name__} stands where a string belongs")
