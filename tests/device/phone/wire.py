"""A host that speaks raw ADB packets, one at a time and also wrongly: what a phone answers, packet by packet."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.device.phone.packets import (
    CLSE,
    CNXN,
    HEADER,
    MAX_PAYLOAD,
    OKAY,
    OPEN,
    SKIP_CHECKSUM,
    WRTE,
    Packet,
    decode_header,
)

__all__ = ["Reply", "Wire", "command", "push", "shell_packets", "sync", "wait_for"]

HOST = b"host::features=shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir,sendrecv_v2"
TIMEOUT_S = 30.0


@dataclass
class Reply:
    """What came back on one stream. okays: beyond the one that opened it. closed: the phone's CLSE came."""

    opened: bool = False
    data: bytes = b""
    okays: int = 0
    closed: bool = False
    remote: int = 0
    largest: int = 0  # bytes of data in one packet
    packets: int = 0  # with data


def shell_packets(data: bytes) -> dict[int, bytes]:
    """The shell protocol's packets, data of the same id together."""
    found: dict[int, bytes] = {}
    while data:
        code, length = struct.unpack_from("<BI", data)
        found[code] = found.get(code, b"") + data[5 : 5 + length]
        data = data[5 + length :]
    return found


def sync(code: bytes, path: bytes) -> bytes:
    """One sync request, or with a number's four bytes and no path a `DONE`."""
    return code + struct.pack("<I", len(path)) + path


class Wire:
    """One connection. `banner` is the phone's CNXN."""

    def __init__(
        self, port: int, *, version: int = SKIP_CHECKSUM, maxdata: int = MAX_PAYLOAD, connect: bool = True
    ) -> None:
        self.end = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self.end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.version, self.maxdata = version, maxdata
        self.next_id = 1
        self.probes: set[int] = set()
        if connect:
            self.send(CNXN, version, maxdata, HOST)
            self.banner = self.receive()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.end.close()

    def send(
        self, command: int, arg0: int, arg1: int, data: bytes = b"", *, bad_checksum: bool = False
    ) -> None:
        packet = Packet(command, arg0, arg1, data)
        self.end.sendall(packet.encode(version=self.version, bad_checksum=bad_checksum))

    def exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            data = self.end.recv(count - len(parts))
            if not data:
                raise EOFError
            parts += data
        return bytes(parts)

    def receive(self) -> Packet:
        packet, length = decode_header(self.exactly(HEADER.size))
        return replace(packet, data=self.exactly(length))

    def open(self, service: bytes) -> int:
        """Send OPEN; the stream's id here."""
        local, self.next_id = self.next_id, self.next_id + 1
        self.send(OPEN, local, 0, service + b"\0")
        return local

    def collect(self, local: int, *, writes: list[bytes] | None = None, until: int | None = None) -> Reply:
        """Acknowledge and gather what comes on one stream to its end, or until so many bytes came.

        `writes` are sent one after the other's OKAY, the first when the stream is open.
        """
        reply, left = Reply(), list(writes or [])
        while not reply.closed and (not until or len(reply.data) < until):
            packet = self.receive()
            if packet.arg1 != local:
                continue
            if packet.command == CLSE:
                reply.closed = True
                if reply.opened:
                    self.send(CLSE, local, reply.remote)
            elif packet.command == OKAY:
                reply.okays += reply.opened
                reply.opened, reply.remote = True, packet.arg0
                if left:
                    self.send(WRTE, local, reply.remote, left.pop(0))
                elif until == 0:
                    break
            elif packet.command == WRTE:
                reply.data += packet.data
                reply.packets += 1
                reply.largest = max(reply.largest, len(packet.data))
                self.send(OKAY, local, reply.remote)
        return reply

    def run(self, service: bytes, *writes: bytes) -> Reply:
        """Open a service, write to it, gather everything to its end."""
        return self.collect(self.open(service), writes=list(writes))

    def settle(self) -> list[tuple[str, int, int]]:
        """Name and arguments of everything that comes before the answer to a probe: what a wrong packet caused.

        The phone handles packets in order, so no waiting time is needed to see that nothing came.
        """
        local, before = self.open(b"shell:echo probe"), []
        self.probes.add(local)
        while True:
            packet = self.receive()
            if packet.arg1 not in self.probes:
                before.append((packet.name, packet.arg0, packet.arg1))
            elif packet.arg1 != local:
                continue  # an earlier probe's late CLSE
            elif packet.command == WRTE:
                self.send(OKAY, local, packet.arg0)
            elif packet.command == CLSE:
                return before


def command(port: int, line: bytes) -> tuple[int, bytes, bytes]:
    """Status, stdout and stderr of one command on the phone."""
    with Wire(port) as wire:
        found = shell_packets(wire.run(b"shell,v2,raw:" + line).data)
        return found[3][0], found.get(1, b""), found.get(2, b"")


def push(wire: Wire, path: bytes, data: bytes) -> Reply:
    """Push a file with mode 0644; what the sync service answered."""
    parts = [sync(b"SEND", path + b",33188")]
    parts += [sync(b"DATA", data[start : start + 65536]) for start in range(0, len(data), 65536)]
    return wire.run(b"sync:", *parts, b"DONE" + struct.pack("<I", 1), sync(b"QUIT", b""))


def wait_for(condition: Callable[[], Any], *, limit_s: float = 20.0) -> None:
    """Until `condition()` is true; fails when it does not become so in time."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
