"""Reading the pickles of CIFAR without running anything that they ask for.

A pickle names functions and has them called. Here a name leads to one of four harmless stand-ins of ours, which
hold what numpy would have been given, or to an error; numpy itself is never called by a file. Found at the end are
dicts, lists, texts, whole numbers and uint8 arrays.
"""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finet_deploy.errors import FinetDeployError
from finet_deploy.files import read_bounded

__all__ = ["read_plain_pickle"]

_ERRORS = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    RecursionError,
    struct.error,
)


class _Array:
    """Stands in for numpy's ndarray while a pickle is read."""

    array: NDArray[np.uint8] | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or fortran:
            raise pickle.UnpicklingError("an array that is not of uint8, row by row")
        if isinstance(raw, str):  # Python 2 wrote bytes as text
            raw = raw.encode("latin1")
        self.array = np.frombuffer(raw, dtype=np.uint8).reshape(shape)


class _Dtype:
    """Stands in for numpy's dtype; there is only uint8."""

    def __init__(self, name: Any, *_flags: Any) -> None:
        if name not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"an array of {name!r}, not of uint8")

    def __setstate__(self, state: Any) -> None:
        """Byte order, fields and alignment: a single byte has none."""


def _reconstruct(*_arguments: Any) -> _Array:
    return _Array()


def _latin1(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes into a protocol 2 pickle."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
}


class _Unpickler(pickle._Unpickler):
    """The Python form of the unpickler: the C form reserves memory for whatever memo index a file claims."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def read_plain_pickle(path: Path, max_bytes: int) -> Any:
    """What a pickle of dicts, lists, texts, whole numbers and uint8 arrays holds; byte strings come as text (latin1).

    Raises FinetDeployError for a missing, truncated or larger file, and for one that asks for anything else.
    """
    data = read_bounded(path, max_bytes)
    try:
        return _plain(_Unpickler(io.BytesIO(data), encoding="latin1").load(), depth=0)
    except _ERRORS as error:
        reason = str(error).strip().splitlines()
        raise FinetDeployError(
            f"not a CIFAR batch file, or truncated: {reason[0][:200] if reason else type(error).__name__}",
            where=str(path),
            do="remove it and give --download; code from a file is never run",
        ) from error


def _plain(value: Any, depth: int) -> Any:
    if depth > 3:
        raise pickle.UnpicklingError("it is nested too deeply")
    if isinstance(value, _Array) and value.array is not None:
        return value.array
    if isinstance(value, bytes):
        return value.decode("latin1")
    if type(value) is dict:
        return {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
    if type(value) is list:
        return [_plain(item, depth + 1) for item in value]
    if value is None or type(value) in (str, int, bool):
        return value
    raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")
