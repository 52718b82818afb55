"""Scripted ends of the adb protocols: a phone's daemon on packets, an adb server on smart sockets, a stream in memory.

Both peers run the same service scripts (`adb_scripts.py`), so that one test goes over both ways to a phone. A script
gets a `Pipe` (read, write, break) and the service's name, and misbehaves as it likes.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable

from finet_deploy.devices.adb.stream import Clocks
from tests.unit.adb_scripts import PeerClosed, Script

FEATURES = "shell_v2,cmd,stat_v2,ls_v2"


class _Listener:
    """Accepts connections on a free port of the loopback, one thread each."""

    def __init__(self, mss: int | None = None) -> None:
        self._listener = socket.socket()
        if mss is not None:
            self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
        self._listener.bind(("127.0.0.1", 0))  # connections are refused until the block begins
        self.port = self._listener.getsockname()[1]
        self.failures: list[BaseException] = []
        self.connections = 0
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self):
        self._listener.listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        if self._thread.ident is not None:
            self._thread.join(5)
        assert not self.failures, self.failures

    def drop(self) -> None:
        """Cut every connection."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._sockets.append(sock)
            threading.Thread(target=self._run, args=(sock,), daemon=True).start()

    def _run(self, sock: socket.socket) -> None:
        try:
            with sock:
                self.serve(sock)
        except (OSError, PeerClosed):
            pass
        except Exception as error:  # noqa: BLE001  # the test reports it at its end
            self.failures.append(error)

    def serve(self, sock: socket.socket) -> None:
        raise NotImplementedError


def receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise PeerClosed
        data += piece
    return bytes(data)


def _until_closed(sock: socket.socket) -> None:
    """Take nothing, say nothing, until the client or the test's end closes the socket."""
    poll = select.poll()
    with contextlib.suppress(ValueError):  # it is closed already
        poll.register(sock, select.POLLRDHUP)
        poll.poll(60_000)
    raise PeerClosed


class _SocketPipe:
    eager = True

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def read(self, size: int) -> bytes:
        return receive(self._socket, size)

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def cut(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        self._socket.close()
        raise PeerClosed

    def end(self) -> None:
        self._socket.close()
        raise PeerClosed

    def hang(self) -> None:
        _until_closed(self._socket)


class FakeServer(_Listener):
    """An adb server with phones in the states of `states`; `services` by the name's beginning."""

    def __init__(
        self, services: dict[bytes, Script], *, features: str = FEATURES, mss: int | None = None
    ) -> None:
        super().__init__(mss)
        self.services, self.features = services, features
        self.states = {"PHONE": "device"}
        self.answers: dict[str, bytes] = {}  # raw bytes for a request, instead of the right ones
        self.requests: list[str] = []

    def serve(self, sock: socket.socket) -> None:
        request = receive(sock, int(receive(sock, 4), 16)).decode()
        self.requests.append(request)
        if request in self.answers:
            sock.sendall(self.answers[request])
            return
        if request == "host:devices-l":
            text = "".join(f"{serial:<22} {state} transport_id:1\n" for serial, state in self.states.items())
            sock.sendall(self._text(text))
        elif request.startswith("host:connect:"):
            self.states[request[len("host:connect:") :]] = "device"
            sock.sendall(self._text("connected"))
        elif request.startswith("host-serial:"):
            serial, _, what = request[len("host-serial:") :].rpartition(":")
            if what == "reconnect":
                self.states[serial] = "device"
            if serial not in self.states:
                sock.sendall(self._fail(f"device '{serial}' not found"))
            else:
                sock.sendall(self._text(self.states[serial] if what == "get-state" else self.features))
        else:
            self._transport(sock, request)

    def _transport(self, sock: socket.socket, request: str) -> None:
        serial = request.removeprefix("host:transport:")
        state = self.states.get(serial)
        if state != "device":
            sock.sendall(self._fail(f"device {state}" if state else f"device '{serial}' not found"))
            return
        sock.sendall(b"OKAY")
        service = receive(sock, int(receive(sock, 4), 16))
        for name, script in self.services.items():
            if service.startswith(name):
                sock.sendall(b"OKAY")
                script(_SocketPipe(sock), service)
                return
        sock.sendall(self._fail("closed"))

    @staticmethod
    def _text(text: str) -> bytes:
        return b"OKAY%04x" % len(text.encode()) + text.encode()

    @staticmethod
    def _fail(reason: str) -> bytes:
        return b"FAIL%04x" % len(reason) + reason.encode()


def packet(command: bytes, arg0: int, arg1: int, data: bytes = b"", *, checksum: int | None = None) -> bytes:
    number = int.from_bytes(command, "little")
    total = sum(data) & 0xFFFFFFFF if checksum is None else checksum
    return struct.pack("<6I", number, arg0, arg1, len(data), total, number ^ 0xFFFFFFFF) + data


class PacketPipe:
    """A stream of a `FakePhone`: one WRTE under way each way, as adbd does it; more than that fails the test."""

    def __init__(self, phone: FakePhone, sock: socket.socket, remote: int, local: int) -> None:
        self.phone, self.socket, self.remote, self.local = phone, sock, remote, local
        self._buffer = bytearray()
        self.closed = False
        self.acknowledged = True
        self.eager = True
        self._owed = 0

    def step(self) -> None:
        command, _arg0, arg1, data = self.phone.receive_packet(self.socket)
        if arg1 != self.local:
            return
        if command == b"CLSE":
            self.closed = True
            raise PeerClosed
        if command == b"OKAY":
            self.acknowledged = True
        elif command == b"WRTE":
            assert len(data) <= self.phone.maxdata, f"{len(data)} bytes in a packet of {self.phone.maxdata}"
            self._buffer += data
            self._owed += 1
        if self._owed and (self.eager or self.acknowledged):
            self.socket.sendall(packet(b"OKAY", self.local, self.remote) * self._owed)
            self._owed = 0

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self.step()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), self.phone.maxdata):
            self.acknowledged = False
            self.socket.sendall(
                packet(b"WRTE", self.local, self.remote, data[start : start + self.phone.maxdata])
            )
            while not self.acknowledged:
                self.step()

    def cut(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        raise PeerClosed

    def end(self) -> None:
        self.socket.close()
        raise PeerClosed

    def hang(self) -> None:
        _until_closed(self.socket)


class FakePhone(_Listener):
    """A phone's daemon. authorize: called with (kind, data) of each AUTH packet, answers whether to let the host in."""

    def __init__(
        self,
        services: dict[bytes, Script],
        *,
        features: str = FEATURES,
        mss: int | None = None,
        maxdata: int = 1 << 20,
        authorize: Callable[[int, bytes], bool] | None = None,
    ) -> None:
        super().__init__(mss)
        self.services, self.features, self.maxdata, self.authorize = services, features, maxdata, authorize
        self.token = bytes(range(20))
        self.state = "device"
        self.hello: bytes | None = None  # raw bytes instead of the whole beginning
        self.late: Callable[[PacketPipe], None] | None = None  # run after a stream of ours was closed

    def receive_packet(self, sock: socket.socket) -> tuple[bytes, int, int, bytes]:
        number, arg0, arg1, length, total, magic = struct.unpack("<6I", receive(sock, 24))
        assert magic == number ^ 0xFFFFFFFF
        data = receive(sock, length)
        assert total == sum(data) & 0xFFFFFFFF
        return number.to_bytes(4, "little"), arg0, arg1, data

    def serve(self, sock: socket.socket) -> None:
        command, _version, _maxdata, _banner = self.receive_packet(sock)
        assert command == b"CNXN"
        if self.hello is not None:
            sock.sendall(self.hello)
            receive(sock, 1 << 30)
        while self.authorize is not None:
            sock.sendall(packet(b"AUTH", 1, 0, self.token))
            command, kind, _, data = self.receive_packet(sock)
            assert command == b"AUTH"
            if self.authorize(kind, data):
                break
        text = f"{self.state}::ro.product.model=Test Phone;features={self.features}".encode()
        sock.sendall(packet(b"CNXN", 0x01000001, self.maxdata, text))
        local = 100
        while True:
            command, remote, _, service = self.receive_packet(sock)
            if command == b"OPEN":
                local += 1
                self._open(sock, remote, local, service.rstrip(b"\0"))

    def _open(self, sock: socket.socket, remote: int, local: int, service: bytes) -> None:
        for name, script in self.services.items():
            if not service.startswith(name):
                continue
            sock.sendall(packet(b"OKAY", local, remote))
            pipe = PacketPipe(self, sock, remote, local)
            try:
                script(pipe, service)
                sock.sendall(packet(b"CLSE", local, remote))
            except PeerClosed:
                if not pipe.closed:
                    raise
                sock.sendall(packet(b"CLSE", local, remote))
                if self.late is not None:
                    self.late(pipe)
            return
        sock.sendall(packet(b"CLSE", 0, remote))


class MemoryStream:
    """A `ByteStream` that was recorded: `chunks` come out one a read, then the end. `written` is what went in."""

    block = 1 << 17

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = [chunk for chunk in chunks if chunk]
        self.written = bytearray()

    def read(self, size: int, clocks: Clocks) -> bytes:
        if not self._chunks:
            return b""
        chunk = self._chunks.pop(0)
        if len(chunk) > size:
            self._chunks.insert(0, chunk[size:])
        return chunk[:size]

    def write(self, data: bytes, clocks: Clocks, *, unless_answered: bool = False) -> bool:
        self.written += data
        return True

    def close(self) -> None: ...
