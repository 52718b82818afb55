"""`phone.jsonl` in a run folder: what is known of a phone's visits beside their records, one JSON object a line.

Append-only like `records.jsonl`. A table's remarks on a phone's rows come from here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from finet_deploy.devices.equivalence import Equivalence
from finet_deploy.devices.phone_state import PhoneFacts
from finet_deploy.devices.phone_visit import PhoneVisit
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import explain_os_error
from finet_deploy.json_files import BadJson, decode_json

__all__ = ["PHONE_FILE", "PhoneIdentity", "PhoneLine", "PhoneProof", "append_line", "read_lines", "remarks"]

PHONE_FILE = "phone.jsonl"
MAX_LINE_BYTES = 4 << 20
MAX_BYTES = 1 << 28


class PhoneIdentity(msgspec.Struct, tag_field="type", tag="phone", frozen=True, kw_only=True):
    """What the phone is; written whenever a run begins or goes on."""

    name: str
    facts: PhoneFacts


class PhoneProof(msgspec.Struct, tag_field="type", tag="proof", frozen=True, kw_only=True):
    """The golden outputs of a row, judged."""

    row: str
    equivalence: Equivalence


PhoneLine = PhoneIdentity | PhoneProof | PhoneVisit


def append_line(folder: Path, line: PhoneLine) -> None:
    """Add a line and wait until it is on the disk. FinetDeployError when it cannot be written."""
    path = folder / PHONE_FILE
    try:
        # A newline first: a line that was cut off by a kill stays one line.
        with path.open("ab") as stream:
            stream.write((b"\n" if stream.tell() else b"") + msgspec.json.encode(line))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise explain_os_error(error, "write", path) from error


def read_lines(folder: Path) -> tuple[PhoneLine, ...]:
    """All lines; none for a run on the host. A line that was cut off by a kill is left out.

    FinetDeployError for a file of another kind.
    """
    path = folder / PHONE_FILE
    if not path.exists():
        return ()
    if not path.is_file():  # a pipe would be waited for
        raise FinetDeployError("not a file", where=str(path), do="check the folder")
    found: list[PhoneLine] = []
    unreadable = total = 0
    try:
        with path.open("rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                total += len(line)
                try:
                    found.append(decode_json(line, PhoneLine))
                except BadJson:
                    unreadable += 1
                if len(line) > MAX_LINE_BYTES or total > MAX_BYTES or unreadable > len(found) + 1:
                    raise FinetDeployError("not a phone's lines", where=str(path), do="check the file")
    except OSError as error:
        raise explain_os_error(error, "read", path) from error
    return tuple(found)


def remarks(lines: tuple[PhoneLine, ...]) -> Mapping[int, tuple[str, ...]]:
    """Visit -> what a reader of its row must know, by the last attempt. Visits without remarks are left out."""
    last = {line.visit: line for line in lines if isinstance(line, PhoneVisit)}
    found = {index: tuple(_remarks(visit)) for index, visit in sorted(last.items())}
    return {index: texts for index, texts in found.items() if texts}


def _remarks(visit: PhoneVisit) -> list[str]:
    found = list(visit.contaminated)
    if visit.repeated_because:
        found.append(f"second attempt, the first one was spoiled: {'; '.join(visit.repeated_because)}")
    if visit.rest.problem is not None:
        found.append(f"not known to be at rest: {visit.rest.problem}")
    if visit.pin.mask.value is None:
        found.append(f"ran unpinned: {visit.pin.mask.reason}")
    if visit.before.power_save.value:
        found.append("battery saver was on")
    if visit.before.screen.value not in (None, "awake"):
        found.append(f"the screen was {visit.before.screen.value}")
    if visit.before.faked or visit.after.faked:
        found.append("battery or heat were set by hand")
    return found
