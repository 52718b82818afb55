"""Byte streams to a service on a phone, and the two clocks that bound everything done with them."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Protocol

from finet_deploy.devices.adb.errors import PhoneGone, PhoneTimeout

__all__ = ["ByteStream", "Clocks", "Reader", "SocketStream", "wait_for"]


class Clocks:
    """Two limits of one call: `total` seconds in all, `idle` seconds without progress (None: no such limit)."""

    def __init__(self, phone: str, doing: str, total: float, idle: float | None = None) -> None:
        self.phone, self.doing, self.total, self.idle = phone, doing, total, idle
        self._start = self._last = time.monotonic()

    def progress(self) -> None:
        """Bytes moved: the idle clock starts anew."""
        self._last = time.monotonic()

    def left(self) -> float:
        """Seconds to the nearer limit, > 0. Raises `PhoneTimeout`."""
        now = time.monotonic()
        left = self._start + self.total - now
        if self.idle is not None:
            left = min(left, self._last + self.idle - now)
        if left <= 0:
            raise self.timeout()
        return left

    def timeout(self) -> PhoneTimeout:
        """The error that says which of the two clocks ran out."""
        now = time.monotonic()
        if self.idle is not None and now - self._last >= self.idle and now - self._start < self.total:
            return PhoneTimeout(self.phone, f"silent for {self.idle:g} s while {self.doing}")
        return PhoneTimeout(self.phone, f"not done after {self.total:g} s while {self.doing}")

    def gone(self, why: str = "the link ended") -> PhoneGone:
        """The error for a link that ended meanwhile."""
        return PhoneGone(self.phone, f"{why} while {self.doing}")


class ByteStream(Protocol):
    """A two-way stream of bytes to one service."""

    block: int  # bytes that one write carries best

    def read(self, size: int, clocks: Clocks) -> bytes:
        """1 to `size` bytes; b"" when the stream has ended, for whatever reason."""

    def write(self, data: bytes, clocks: Clocks, *, unless_answered: bool = False) -> bool:
        """Send all of `data`. False when the stream ended first or, if asked for, when the phone has answered."""

    def close(self) -> None:
        """End the stream; nothing that is still under way reaches a later one. Never raises."""


class Reader:
    """Reads exact sizes from a stream; an early end is `PhoneGone`.

    ahead: bytes that it may take from the stream beyond what is asked for.
    """

    def __init__(self, stream: ByteStream, clocks: Clocks, *, ahead: int = 1 << 17) -> None:
        self._stream, self._clocks, self._ahead = stream, clocks, ahead
        self._buffer = bytearray()

    def exactly(self, size: int) -> bytes:
        """`size` bytes. The caller has checked that `size` is sane."""
        while len(self._buffer) < size:
            chunk = self._stream.read(max(size - len(self._buffer), self._ahead), self._clocks)
            if not chunk:
                raise self._clocks.gone()
            self._buffer += chunk
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def rest(self, max_bytes: int) -> bytes:
        """Everything up to the stream's end, or the first bytes beyond `max_bytes` when there are more."""
        while len(self._buffer) <= max_bytes:
            chunk = self._stream.read(1 << 17, self._clocks)
            if not chunk:
                break
            self._buffer += chunk
        data, self._buffer = bytes(self._buffer), bytearray()
        return data


def wait_for(sock: socket.socket, seconds: float, *, read: bool, write: bool) -> tuple[bool, bool]:
    """Wait until `sock` can be read or written: (readable, writable); both False when the time is up."""
    if not hasattr(select, "poll"):  # Windows
        readable, writable, _ = select.select(
            [sock] if read else [], [sock] if write else [], [], max(0.0, seconds)
        )
        return bool(readable), bool(writable)
    poll = select.poll()  # not select(): descriptors above 1023 exist in a process that runs many phones
    poll.register(sock, (select.POLLIN if read else 0) | (select.POLLOUT if write else 0))
    events = poll.poll(max(0, round(seconds * 1000 + 0.5)))
    bits = events[0][1] if events else 0
    broken = bits & (select.POLLERR | select.POLLHUP | select.POLLNVAL)
    return bool(read and (bits & select.POLLIN or broken)), bool(write and (bits & select.POLLOUT or broken))


class SocketStream:
    """A service's raw stream on a socket of its own: what the adb server gives."""

    block = 4 * (64 * 1024 + 8)

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)

    def read(self, size: int, clocks: Clocks) -> bytes:
        while True:
            readable, _ = wait_for(self._socket, clocks.left(), read=True, write=False)
            if not readable:
                raise clocks.timeout()
            try:
                data = self._socket.recv(size)
            except BlockingIOError:
                continue
            except OSError:
                return b""  # a reset is an end like any other: every reader says what an early end means
            clocks.progress()
            return data

    def write(self, data: bytes, clocks: Clocks, *, unless_answered: bool = False) -> bool:
        view = memoryview(data)
        while view:
            answered, writable = wait_for(self._socket, clocks.left(), read=unless_answered, write=True)
            if answered:
                return False
            if not writable:
                raise clocks.timeout()
            try:
                sent = self._socket.send(view)
            except BlockingIOError:
                continue
            except OSError:
                return False  # the reader finds out: there may be a reason to read
            clocks.progress()
            view = view[sent:]
        return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()
