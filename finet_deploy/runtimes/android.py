"""Which files the Android app's runtimes load: an export that a phone could not open is told at once.

The facts are in `android.json`; `finet_deploy.app.runtimes` reads them out of the app's libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

__all__ = ["ANDROID_FILE", "Loads", "known_runtimes", "unloadable"]

ANDROID_FILE = Path(__file__).resolve().with_name("android.json")


class Loads(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one library loads. bytecode: lowest and highest version, where the format has one. identifiers: marks of
    the formats that it knows. operators: name -> largest number of arguments, null where the library does not tell;
    empty where it has all of its format."""

    library: str
    version: str
    format: str
    bytecode: tuple[int, int] | None = None
    identifiers: tuple[str, ...] = ()
    operators: dict[str, int | None] = {}
    source: str


def known_runtimes() -> dict[str, Loads]:
    """Format -> what the app's runtime loads."""
    rows = msgspec.json.decode(ANDROID_FILE.read_bytes(), type=tuple[Loads, ...])
    return {row.format: row for row in rows}


def unloadable(
    fmt: str, *, bytecode_version: int | None = None, operators: Iterable[str] | Mapping[str, int] = ()
) -> list[str]:
    """Why the app cannot load a file of format `fmt`; empty when nothing speaks against it.

    operators: names as the runtime has them (`aten::mean.dim`), with the number of arguments given where known.
    """
    row = known_runtimes().get(fmt)
    if row is None:
        return [f"the app has no runtime for '{fmt}' files"]
    problems = []
    whose = f"{row.library} {row.version}"
    if bytecode_version is not None and row.bytecode is not None:
        low, high = row.bytecode
        if not low <= bytecode_version <= high:
            problems.append(f"bytecode version {bytecode_version}; {whose} loads {low} to {high}")
    counts = dict(operators) if isinstance(operators, Mapping) else dict.fromkeys(operators, 0)
    for name, given in sorted(counts.items()) if row.operators else ():
        if name not in row.operators:
            problems.append(f"operator {name}, which {whose} lacks")
        elif given > (row.operators[name] or given):
            problems.append(f"operator {name} with {given} arguments; {whose} takes {row.operators[name]}")
    return problems
