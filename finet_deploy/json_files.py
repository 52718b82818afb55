"""JSON files of this program's own: written one way, and read with a bound and an error that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from finet_deploy.errors import FinetDeployError
from finet_deploy.files import read_bounded

__all__ = ["encode_json", "read_json"]


def encode_json(value: Any) -> bytes:
    """One field a line, so that two files can be compared, and a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def read_json(path: Path, kind: Any, *, max_bytes: int, what: str, do: str) -> Any:
    """A value of type `kind`. FinetDeployError, beginning with `what`, when the file holds none."""
    try:
        return msgspec.json.decode(read_bounded(path, max_bytes), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FinetDeployError(f"{what}: {error}", where=str(path), do=do) from error
