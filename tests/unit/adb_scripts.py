"""What scripted phones do in a service: commands that say something, files that may be refused. See `adb_peer.py`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol


class PeerClosed(Exception):
    """Our side of the test went away."""


class Pipe(Protocol):
    """One service's stream, seen from the phone.

    eager: whether what comes is acknowledged while an answer of ours is not acknowledged yet (packets only).
    """

    eager: bool

    def read(self, size: int) -> bytes: ...

    def write(self, data: bytes) -> None: ...

    def cut(self) -> None:
        """Break the whole link at once: a reset."""

    def end(self) -> None:
        """Close the whole link in order, as a daemon that is ended does."""

    def hang(self) -> None:
        """Keep the link open and say nothing, until the client goes."""


Script = Callable[[Pipe, bytes], None]


def shell_packet(kind: int, data: bytes) -> bytes:
    return struct.pack("<BI", kind, len(data)) + data


def shell_says(stdout: bytes = b"", stderr: bytes = b"", status: int = 0) -> Script:
    """A shell,v2 command with these outputs."""

    def script(pipe: Pipe, service: bytes) -> None:
        pipe.read(5)  # close stdin
        for kind, data in ((1, stdout), (2, stderr), (3, bytes([status]))):
            if data:
                pipe.write(shell_packet(kind, data))

    return script


def fail(reason: bytes) -> bytes:
    return struct.pack("<4sI", b"FAIL", len(reason)) + reason


@dataclass
class Files:
    """A `sync:` service on a dictionary.

    refuse_after: bytes of a push after which it says `reason`. then: what it does next: `drain` takes the rest as adbd
    does, `close` ends the stream, `hang` takes nothing more.
    """

    files: dict[bytes, bytes] = field(default_factory=dict)
    modes: dict[bytes, int] = field(default_factory=dict)
    refuse_after: int | None = None
    reason: bytes = b"write failed: No space left on device"
    then: str = "drain"
    received: int = 0
    chunks: list[int] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)

    def __call__(self, pipe: Pipe, service: bytes) -> None:
        kind, length = struct.unpack("<4sI", pipe.read(8))
        path = pipe.read(length)
        self.requests.append(kind)
        {
            b"SEND": self._send,
            b"RECV": self._recv,
            b"STAT": self._stat,
            b"STA2": self._stat2,
            b"LIST": self._list,
            b"LIS2": self._list2,
        }[kind](pipe, path)

    def _send(self, pipe: Pipe, spec: bytes) -> None:
        path, _, mode = spec.rpartition(b",")
        data = bytearray()
        refused = False
        while True:
            if self.refuse_after is not None and len(data) >= self.refuse_after and not refused:
                pipe.eager = self.then != "hang"
                pipe.write(fail(self.reason)[:8])  # adbd's FAIL often comes in two pieces
                pipe.write(self.reason)
                refused = True
                if self.then == "close":
                    return
                if self.then == "hang":
                    pipe.hang()
            kind, length = struct.unpack("<4sI", pipe.read(8))
            if kind == b"DONE":
                break
            assert kind == b"DATA", kind
            self.chunks.append(length)
            data += pipe.read(length)
            self.received = len(data)
        if not refused:
            self.files[path], self.modes[path] = bytes(data), int(mode)
            pipe.write(struct.pack("<4sI", b"OKAY", 0))

    def _recv(self, pipe: Pipe, path: bytes) -> None:
        data = self.files.get(path)
        if data is None:
            pipe.write(fail(b"open failed: No such file or directory"))
            return
        for start in range(0, len(data), 65536):
            piece = data[start : start + 65536]
            pipe.write(struct.pack("<4sI", b"DATA", len(piece)) + piece)
        pipe.write(struct.pack("<4sI", b"DONE", 0))

    def _numbers(self, path: bytes) -> tuple[int, int, int]:
        return (self.modes.get(path, 0o100644), len(self.files[path]), 7) if path in self.files else (0, 0, 0)

    def _stat(self, pipe: Pipe, path: bytes) -> None:
        pipe.write(struct.pack("<4sIII", b"STAT", *self._numbers(path)))

    def _stat2(self, pipe: Pipe, path: bytes) -> None:
        pipe.write(b"STA2" + self._long(path))

    def _long(self, path: bytes) -> bytes:
        mode, size, mtime = self._numbers(path)
        return struct.pack("<IQQIIIIQqqq", 0 if mode else 2, 1, 1, mode, 1, 0, 0, size, 0, mtime, 0)

    def _names(self, folder: bytes) -> Iterator[tuple[bytes, bytes]]:
        for path in self.files:
            if path.startswith(folder + b"/"):
                yield path, path[len(folder) + 1 :]

    def _list(self, pipe: Pipe, folder: bytes) -> None:
        for path, name in self._names(folder):
            pipe.write(struct.pack("<4sIIII", b"DENT", *self._numbers(path), len(name)) + name)
        pipe.write(struct.pack("<4sIIII", b"DONE", 0, 0, 0, 0))

    def _list2(self, pipe: Pipe, folder: bytes) -> None:
        for path, name in [(b"", b"."), *self._names(folder)]:
            pipe.write(b"DNT2" + self._long(path) + struct.pack("<I", len(name)) + name)
        pipe.write(b"DONE" + bytes(72))
