"""Which files the Android app's runtimes load: what a phone could not open is told at the export, and not sent.

The facts are in `android.json`; `finet_deploy.app.runtimes` reads them out of the app's libraries.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from finet_deploy.runtimes.needs import read_needs

__all__ = ["ANDROID_FILE", "Loads", "known_runtimes", "unloadable", "unloadable_file"]

ANDROID_FILE = Path(__file__).resolve().with_name("android.json")


class Loads(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one library loads. bytecode: lowest and highest version, where the format has one. identifiers: marks of
    the formats that it knows. backends: whose delegates it runs. operators: name -> largest number of arguments, null
    where the library does not tell. What is empty, it has all of, or its format has none of it."""

    library: str
    version: str
    format: str
    bytecode: tuple[int, int] | None = None
    identifiers: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    operators: dict[str, int | None] = {}
    source: str


@functools.cache
def known_runtimes() -> dict[str, Loads]:
    """Format -> what the app's runtime loads."""
    rows = msgspec.json.decode(ANDROID_FILE.read_bytes(), type=tuple[Loads, ...])
    return {row.format: row for row in rows}


def unloadable_file(path: Path, fmt: str) -> list[str]:
    """Why the app cannot load the file at `path`, after what is in it; empty when nothing speaks against it.

    Raises FinetDeployError for a file that is not of its format.
    """
    needs = read_needs(path, fmt)
    return unloadable(
        fmt,
        bytecode_version=needs.bytecode_version,
        operators=needs.operators,
        identifiers=needs.identifiers,
        backends=needs.backends,
    )


def unloadable(
    fmt: str,
    *,
    bytecode_version: int | None = None,
    operators: Iterable[str] | Mapping[str, int] = (),
    identifiers: Iterable[str] = (),
    backends: Iterable[str] = (),
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
    if row.identifiers:
        unknown = [mark for mark in identifiers if mark not in row.identifiers]
        problems += [f"format {mark!r}; {whose} loads {', '.join(row.identifiers)}" for mark in unknown]
    if row.backends:
        foreign = [name for name in backends if name not in row.backends]
        problems += [f"a delegate of {name}; {whose} has {', '.join(row.backends)}" for name in foreign]
    counts = dict(operators) if isinstance(operators, Mapping) else dict.fromkeys(operators, 0)
    for name, given in sorted(counts.items()) if row.operators else ():
        if name not in row.operators:
            problems.append(f"operator {name}, which {whose} lacks")
        elif given > (row.operators[name] or given):
            problems.append(f"operator {name} with {given} arguments; {whose} takes {row.operators[name]}")
    return problems
