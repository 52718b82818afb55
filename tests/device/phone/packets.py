"""ADB's packets as bytes (AOSP, `packages/modules/adb/protocol.txt`)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = [
    "AUTH",
    "CLSE",
    "CNXN",
    "HEADER",
    "MAX_PAYLOAD",
    "OKAY",
    "OPEN",
    "SKIP_CHECKSUM",
    "VERSION_MIN",
    "WRTE",
    "BadPacket",
    "Packet",
    "decode_header",
]

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
VERSION_MIN, SKIP_CHECKSUM = 0x01000000, 0x01000001  # from the second on, the checksum is 0 and not looked at
MAX_PAYLOAD = 1 << 20
HEADER = struct.Struct("<6I")  # command, arg0, arg1, length, checksum, command ^ 0xffffffff


class BadPacket(Exception):
    """The bytes are no packet: the stream cannot be trusted any more."""


@dataclass(frozen=True)
class Packet:
    """One packet. `checksum` and `magic` are what the header says; adbd does not look at the first."""

    command: int
    arg0: int
    arg1: int
    data: bytes = b""
    checksum: int = 0
    magic: int | None = None  # None: right

    @property
    def magic_is_right(self) -> bool:
        return self.magic in (None, self.command ^ 0xFFFFFFFF)

    @property
    def name(self) -> str:
        return self.command.to_bytes(4, "little").decode("latin-1")

    def encode(self, *, version: int, bad_checksum: bool = False) -> bytes:
        """Header and data, for a connection of protocol `version`."""
        total = sum(self.data) & 0xFFFFFFFF if version < SKIP_CHECKSUM else 0
        if bad_checksum:
            total ^= 0x5A5A
        head = HEADER.pack(
            self.command, self.arg0, self.arg1, len(self.data), total, self.command ^ 0xFFFFFFFF
        )
        return head + self.data


def decode_header(head: bytes) -> tuple[Packet, int]:
    """The packet without its data, and the length of the data in bytes (at most 1 MiB, else `BadPacket`)."""
    command, arg0, arg1, length, checksum, magic = HEADER.unpack(head)
    if length > MAX_PAYLOAD:
        raise BadPacket(f"{length} bytes of data, {MAX_PAYLOAD} are the most")
    return Packet(command, arg0, arg1, b"", checksum, magic), length
