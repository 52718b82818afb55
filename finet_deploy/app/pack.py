"""The APK as a zip file: the same bytes from the same files; native libraries where a phone can map them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PAGE", "Entry", "pack", "stored_offsets"]

PAGE = 16384  # bytes; phones have pages of 4 or 16 KiB
WORD = 4
DATE = (1981, 1, 1, 1, 1, 2)  # what Android's own build writes
# Extra field "Android alignment": a signer that moves entries keeps to it.
ALIGNMENT_FIELD = 0xD935


@dataclass(frozen=True)
class Entry:
    """A file of the APK. stored: not compressed, to be mapped where it lies."""

    data: bytes
    stored: bool = False

    def alignment(self, name: str) -> int:
        """Bytes on which its data starts."""
        return PAGE if name.endswith(".so") else WORD


def pack(entries: Mapping[str, Entry]) -> bytes:
    """A zip of the entries in the order of their names, with no trace of when and where it was made."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, entry in sorted(entries.items()):
            info = zipfile.ZipInfo(name, DATE)
            info.create_system = 0
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_STORED if entry.stored else zipfile.ZIP_DEFLATED
            if entry.stored:
                alignment = entry.alignment(name)
                start = out.tell() + 30 + len(name.encode()) + 6
                padding = -start % alignment
                info.extra = struct.pack("<HHH", ALIGNMENT_FIELD, 2 + padding, alignment) + bytes(padding)
            archive.writestr(info, entry.data, compresslevel=9)
    return out.getvalue()


def stored_offsets(apk: bytes) -> dict[str, int]:
    """Name -> where the data of each stored entry starts, bytes."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(apk)) as archive:
        for info in archive.infolist():
            if info.compress_type == zipfile.ZIP_STORED:
                name, extra = struct.unpack_from("<HH", apk, info.header_offset + 26)
                found[info.filename] = info.header_offset + 30 + name + extra
    return found
