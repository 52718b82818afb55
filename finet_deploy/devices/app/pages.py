"""Which runtimes of an APK load on a phone, after the size of its memory pages.

Phones have pages of 4 or 16 KiB. A native library whose segments are aligned to less than a page cannot be mapped: the
phone's linker refuses it, with the first model.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from finet_deploy.app.libraries import libraries
from finet_deploy.devices.patience import Patience, persist

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["page_bytes", "runtime_alignments"]

MAX_HEADER_BYTES = 1 << 16
LOAD = 1


def runtime_alignments(apk: Path) -> dict[str, int]:
    """Runtime -> the smallest alignment, bytes, of a segment of its native libraries in this APK.

    Runtimes of which the APK has no library are left out.
    """
    found: dict[str, int] = {}
    with zipfile.ZipFile(apk) as archive:
        for library in libraries("app"):
            files = {path.rsplit("/", 1)[-1] for path in library.native}
            for info in archive.infolist():
                folder, _, name = info.filename.rpartition("/")
                if library.runtime is None or name not in files or not folder.startswith("lib/"):
                    continue
                with archive.open(info) as stream:
                    alignment = _alignment(stream.read(MAX_HEADER_BYTES))
                if alignment is not None:
                    found[library.runtime] = min(alignment, found.get(library.runtime, alignment))
    return found


def _alignment(data: bytes) -> int | None:
    """Of an ELF file's head, 64-bit, little-endian: what arm64-v8a and x86_64 have."""
    if data[:6] != b"\x7fELF\x02\x01":
        return None
    try:
        (table,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        segments = [struct.unpack_from("<I44xQ", data, table + size * at) for at in range(count)]
    except struct.error:
        return None
    return min((alignment for kind, alignment in segments if kind == LOAD), default=None)


def page_bytes(connection: Connection, patience: Patience) -> int | None:
    """The phone's page size; None where it does not tell (Android before 15, which has pages of 4 KiB)."""
    command = "getconf PAGE_SIZE"
    answer = persist(connection, lambda: connection.shell(command), patience, "asking for the page size")
    words = answer.stdout.split()
    return int(words[0]) if len(words) == 1 and words[0].isdigit() and len(words[0]) < 9 else None
