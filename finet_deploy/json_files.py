"""JSON files of this program's own: written one way, and read with bounds and an error that says what to do."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path
from typing import Any

import msgspec

from finet_deploy.errors import FinetDeployError
from finet_deploy.files import read_bounded

__all__ = ["MAX_DEPTH", "MAX_INTEGER", "BadJson", "decode_json", "encode_json", "read_json"]

MAX_DEPTH = 64
MAX_INTEGER = 2**63 - 1  # what a `long` holds: our readers in C++ and Java know no larger one

_MANY_DIGITS = b"0" * 19  # after _DIGITS; a regular expression takes ten times as long
_DIGITS = bytes(48 if byte in b"0123456789" else 32 for byte in range(256))
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[]{}", b"\2\0\2\0")


class BadJson(msgspec.DecodeError):
    """Not exactly one value of the type that was asked for. Its text says why and, where known, at which field."""


def encode_json(value: Any) -> bytes:
    """One field a line, so that two files can be compared, and a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def decode_json(data: bytes, kind: Any = Any) -> Any:
    """The value of type `kind` that `data` holds: the one way in which JSON that we did not just write is read.

    Raises `BadJson` for another type, NaN and infinity, invalid UTF-8, text that goes on or is cut off, and for what
    most parsers let pass: a key that stands twice (the last one would win, unseen), integers beyond 64 bits, and more
    than `MAX_DEPTH` levels. The size is the caller's to bound.
    """
    try:
        _check_depth(data)
        value = _decoder(kind).decode(data)
        # What is byte for byte as we would write it holds no key twice. Lines of records are, and they are many.
        if _MANY_DIGITS in data.translate(_DIGITS) or msgspec.json.encode(value) != data.rstrip(b"\n"):
            json.loads(data, object_pairs_hook=_unique, parse_int=_bounded)
    except (BadJson, RecursionError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise error if isinstance(error, BadJson) else BadJson(str(error)) from error
    return value


def read_json(path: Path, kind: Any, *, max_bytes: int, what: str, do: str) -> Any:
    """A value of type `kind`. FinetDeployError, beginning with `what`, when the file holds none."""
    try:
        return decode_json(read_bounded(path, max_bytes), kind)
    except BadJson as error:
        raise FinetDeployError(f"{what}: {error}", where=str(path), do=do) from error


@functools.lru_cache(maxsize=64)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _check_depth(data: bytes) -> None:
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    # Every second part between quotes is outside of strings, once those that are written with a backslash are gone.
    outside = b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    steps = outside.translate(_STEPS, _NO_BRACKETS)
    if max(itertools.accumulate(step - 1 for step in steps), default=0) > MAX_DEPTH:
        raise BadJson(f"nested deeper than {MAX_DEPTH} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadJson(f"the key {twice!r} stands twice in one object")
    return found


def _bounded(digits: str) -> int:
    number = int(digits)  # msgspec has refused what has more digits than `int` takes
    if not -MAX_INTEGER - 1 <= number <= MAX_INTEGER:
        shown = digits if len(digits) <= 24 else f"{digits[:20]}..."
        raise BadJson(f"integer {shown} does not fit into 64 bits")
    return number
