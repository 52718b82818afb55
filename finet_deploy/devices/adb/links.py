"""adb-shell with its defects repaired from outside: its transports (TCP and USB), its packets, its connecting.

Imports adb-shell: only `direct.py` imports this module, when a phone is wanted that way. Repaired here, for 0.4.4:
writes that send only what fits the socket's buffer (the rest was lost), a closed link that was read as data without
end at full CPU, Nagle's delay, timeouts that count from the wrong moment, checksums in slow Python, payload lengths
that the phone chooses freely, a USB transfer without the empty packet that ends it. Its streams, shell and file
functions (no exit status, lost reasons, refused services, 32-bit sizes) are not used at all: `direct.py`.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from adb_shell import constants, exceptions
from adb_shell.adb_device import _AdbIOManager
from adb_shell.adb_message import AdbMessage
from adb_shell.hidden_helpers import _AdbTransactionInfo
from adb_shell.transport.base_transport import BaseTransport
from adb_shell.transport.tcp_transport import TcpTransport

from finet_deploy.devices.adb.errors import PhoneGone, PhoneProtocolError, PhoneRefused, visible
from finet_deploy.devices.adb.stream import Clocks, wait_for

__all__ = ["LinkLost", "Packet", "PacketLink", "TcpLink"]

_STLS = int.from_bytes(b"STLS", "little")
# What adb's own client says of itself (Android 14's platform-tools, less what this client does not speak).
_BANNER = b"features=shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir"


class LinkLost(Exception):
    """The other side closed the link, or it broke."""


class Packet(AdbMessage):
    """A packet to send. The byte sum is NumPy's: Python's own `sum` would halve the rate of a push."""

    @property
    def checksum(self) -> int:
        return _byte_sum(self.data)


def _byte_sum(data: bytes | memoryview) -> int:
    if not data:
        return 0
    return int(np.frombuffer(data, np.uint8).sum(dtype=np.uint64)) & 0xFFFFFFFF


class TcpLink(TcpTransport):
    """A TCP transport that sends everything, sees the end, does not wait for Nagle, and obeys `clocks`."""

    clocks: Clocks

    def connect(self, transport_timeout_s: float | None) -> None:
        seconds = self.clocks.left()
        self._connection = socket.create_connection((self._host, self._port), timeout=seconds)
        self._connection.setblocking(False)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        while True:
            if not wait_for(self._open_socket(), self.clocks.left(), read=True, write=False)[0]:
                raise self.clocks.timeout()
            try:
                data = self._open_socket().recv(numbytes)
            except BlockingIOError:
                continue
            if not data:
                raise LinkLost
            self.clocks.progress()
            return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        view = memoryview(data)
        while view:
            if not wait_for(self._open_socket(), self.clocks.left(), read=False, write=True)[1]:
                raise self.clocks.timeout()
            try:
                sent = self._open_socket().send(view)
            except BlockingIOError:
                continue
            self.clocks.progress()
            view = view[sent:]
        return len(data)

    def _open_socket(self) -> socket.socket:
        if self._connection is None:
            raise LinkLost
        return self._connection


class PacketLink(_AdbIOManager):
    """Connecting and packets over a transport that has `clocks`, with bounds on what the phone may say.

    banner, maxdata: what the phone told when it accepted the connection.
    """

    def __init__(self, transport: BaseTransport, phone: str) -> None:
        super().__init__(transport)
        self.phone, self.banner, self.maxdata = phone, b"", 0
        # The library's own timeouts are off: the transport looks at its clocks.
        self._never = _AdbTransactionInfo(None, None, None, math.inf)

    def start(self, keys: list[Any], on_prompt: Any, clocks: Clocks) -> None:
        """Connect and authenticate. on_prompt(self): called before the phone asks its user."""
        self._transport.clocks = clocks
        _, maxdata = self.connect(_BANNER, keys, math.inf, on_prompt, self._never)
        if maxdata < 1024:
            raise PhoneProtocolError(self.phone, f"the phone takes packets of {maxdata} bytes only")
        self.maxdata = min(maxdata, constants.MAX_ADB_DATA)

    def set_clocks(self, clocks: Clocks) -> None:
        """The clocks for what follows."""
        self._transport.clocks = clocks

    def post(self, command: bytes, local_id: int, remote_id: int, data: bytes | memoryview = b"") -> None:
        """Send one packet."""
        self._send(Packet(command, local_id, remote_id, data), self._never)

    def receive(self) -> tuple[bytes, int, int, bytes]:
        """The next packet: command, the phone's id, our id, data."""
        return self._read_packet_from_device(self._never)

    def _read_expected_packet_from_device(self, expected_cmds: list[bytes], adb_info: Any) -> Any:
        packet = super()._read_expected_packet_from_device(expected_cmds, adb_info)
        if packet[0] == constants.CNXN:
            self.banner = bytes(packet[3])
        return packet

    def _read_bytes_from_device(self, length: int, adb_info: Any) -> bytes:
        data = bytearray()
        while len(data) < length:
            data += self._transport.bulk_read(length - len(data), None)
        return bytes(data)

    def _read_packet_from_device(self, adb_info: Any) -> tuple[bytes, int, int, bytes]:
        header = self._read_bytes_from_device(constants.MESSAGE_SIZE, adb_info)
        number, arg0, arg1, length, total, magic = struct.unpack(constants.MESSAGE_FORMAT, header)
        if number == _STLS:
            raise PhoneRefused(
                self.phone,
                "this port wants an encrypted connection",
                "TLS (wireless debugging)",
                do="pair the phone with `adb pair`, then use the serial that `adb devices` shows",
            )
        command = constants.WIRE_TO_ID.get(number)
        if command is None or magic != number ^ 0xFFFFFFFF or length > constants.MAX_ADB_DATA:
            raise PhoneProtocolError(
                self.phone,
                f"sent what is no adb packet ({visible(header[:8])!r})",
                do="check host and port: the adb server's own port is not a phone's",
            )
        data = self._read_bytes_from_device(length, adb_info)
        if total != _byte_sum(data):
            raise PhoneProtocolError(
                self.phone, f"a packet arrived damaged: checksum {_byte_sum(data):#x}, not {total:#x}"
            )
        return command, arg0, arg1, data


@contextlib.contextmanager
def explained(clocks: Clocks) -> Iterator[None]:
    """Everything that adb-shell, sockets and libusb may raise, as one of the family."""
    try:
        yield
    except LinkLost as error:
        raise clocks.gone() from error
    except TimeoutError as error:
        raise clocks.timeout() from error
    except (ConnectionRefusedError, socket.gaierror, UnicodeError) as error:  # UnicodeError: no host's name
        raise PhoneGone(
            clocks.phone,
            f"no answer: {getattr(error, 'strerror', None) or error}",
            do="check the address, and that `adb tcpip 5555` was run for this phone since it booted",
        ) from error
    except OSError as error:
        raise clocks.gone(f"the link broke ({visible(str(error), 120)})") from error
    except (
        exceptions.InvalidResponseError,
        exceptions.InvalidCommandError,
        exceptions.InvalidChecksumError,
        ValueError,
        struct.error,
    ) as error:
        raise PhoneProtocolError(
            clocks.phone, f"an answer that makes no sense: {visible(str(error), 120)}"
        ) from error
