"""Jobs and run records of another schema version: brought up to this one, or refused by name.

Within a version, a field that came later has a default which says that it was not kept (`protocol.py`): an older file
is read as it is. A change of meaning raises `SCHEMA_VERSION` and adds the step from the version before to `UPGRADES`;
older files then go through all the steps between. There has been one version so far, so there is no step yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from finet_deploy import __version__
from finet_deploy.bench.protocol import SCHEMA_VERSION, Job, Record
from finet_deploy.errors import FinetDeployError
from finet_deploy.json_files import BadJson, decode_json

__all__ = ["UPGRADES", "Upgrade", "decode_job", "decode_record_line"]

Document = dict[str, Any]


class Upgrade(NamedTuple):
    """From one version to the next one: plain objects in, plain objects out. Both are given a copy of their own."""

    job: Callable[[Document], Document]
    record: Callable[[Document], Document]


UPGRADES: Mapping[int, Upgrade] = {}

DAMAGED = "the file is damaged or foreign: check it"


def decode_job(data: bytes, where: str, upgrades: Mapping[int, Upgrade] = UPGRADES) -> Job:
    """The job in `data`. FinetDeployError, naming `where`, for what is none, or of a version that cannot be read."""
    steps = {version: upgrade.job for version, upgrade in upgrades.items()}
    job: Job = _decode(data, Job, "benchmark job", where, steps)
    return job


def decode_record_line(line: bytes, where: str, upgrades: Mapping[int, Upgrade] = UPGRADES) -> Record:
    """The run record in one line. Errors as of `decode_job`."""
    steps = {version: upgrade.record for version, upgrade in upgrades.items()}
    record: Record = _decode(line, Record, "run record", where, steps)
    return record


def _decode(
    data: bytes, kind: Any, what: str, where: str, steps: Mapping[int, Callable[[Document], Document]]
) -> Any:
    try:
        value = decode_json(data, kind)
    except BadJson as error:
        found = _document(data, error, what, where)
        version = found.get("schema_version")
        if type(version) is not int or version == SCHEMA_VERSION:
            raise _refused(found, error, what, where) from error
        if not all(number in steps for number in range(version, SCHEMA_VERSION)) or version > SCHEMA_VERSION:
            raise _foreign(version, found, what, where, steps) from error
        return _upgraded(found, version, kind, what, where, steps)
    if b'"schema_version"' not in data:  # the structures have a default, for those who make one
        raise FinetDeployError(f"{what} without a schema_version", where=where, do=DAMAGED)
    return value


def _document(data: bytes, error: BadJson, what: str, where: str) -> Document:
    try:
        found: Document = decode_json(data, Document)
    except BadJson:
        raise FinetDeployError(f"not a {what}: {error}", where=where, do=DAMAGED) from error
    return found


def _upgraded(
    found: Document,
    version: int,
    kind: Any,
    what: str,
    where: str,
    steps: Mapping[int, Callable[[Document], Document]],
) -> Any:
    try:
        for number in range(version, SCHEMA_VERSION):
            found = {**steps[number](dict(found)), "schema_version": number + 1}
        return msgspec.convert(found, type=kind)
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:  # a step finds what nobody has checked
        message = f"not a {what} of schema version {version}: {error!r}"
        raise FinetDeployError(message, where=where, do=DAMAGED) from error


def _foreign(
    version: int,
    found: Document,
    what: str,
    where: str,
    steps: Mapping[int, Callable[[Document], Document]],
) -> FinetDeployError:
    readable = " and ".join(str(number) for number in sorted({*steps, SCHEMA_VERSION}))
    return FinetDeployError(
        f"{what} of schema version {version}, this program reads version {readable}",
        where=where,
        do=f"use the finet-deploy that wrote it{_writer(found)}; this is {__version__}",
    )


def _refused(found: Document, error: BadJson, what: str, where: str) -> FinetDeployError:
    """A field that is not known comes from a later program: added fields do not raise the version."""
    unknown = re.search(r"unknown field `(.*?)`", str(error))
    do = DAMAGED
    if unknown is not None:
        do = f"a later finet-deploy may have written it: use that one{_writer(found)}; this is {__version__}"
    return FinetDeployError(f"not a {what}: {error}", where=where, do=do)


def _writer(found: Document) -> str:
    version = found.get("tool_version")
    return f", {version[:20]}" if isinstance(version, str) and version else ""
