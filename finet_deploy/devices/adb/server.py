"""A client of the adb server ("smart sockets"): USB, network, emulators and paired wireless phones alike.

A request is four hex digits of length and text; the reply `OKAY`, or `FAIL`, four hex digits and the reason. A query's
answer is again four hex digits and text. A service: `host:transport:SERIAL`, then its name on the same socket, then
its raw stream. One socket for each call.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from finet_deploy.devices.adb.adb_program import ServerAddress, server_address, start_server
from finet_deploy.devices.adb.errors import (
    PhoneError,
    PhoneGone,
    PhoneProtocolError,
    PhoneRefused,
    PhoneUnauthorized,
    refusal,
    visible,
)
from finet_deploy.devices.adb.services import IDLE_SECONDS, StreamConnection
from finet_deploy.devices.adb.stream import ByteStream, Clocks, Reader, SocketStream

__all__ = ["AdbServer", "FoundPhone", "ServerConnection", "parse_devices", "remedy_for"]

_QUERY_SECONDS = 10.0
_POLL_SECONDS = 0.25
_NO_PERMISSIONS_REMEDY = (
    "allow this user to open the phone: install your system's Android udev rules (Debian: android-sdk-platform-tools-"
    "common), join the group plugdev, log in anew and plug the phone in again"
)
_REMEDIES = {
    "unauthorized": PhoneUnauthorized.remedy,
    "authorizing": PhoneUnauthorized.remedy,
    "offline": "unplug the phone and plug it in again, or `adb reconnect offline`; reboot the phone if it stays so",
    "connecting": "wait a few seconds and look again",
    "no permissions": _NO_PERMISSIONS_REMEDY,
    "recovery": "boot the phone into Android: `adb reboot`",
    "sideload": "boot the phone into Android: `adb reboot`",
    "rescue": "boot the phone into Android: `adb reboot`",
    "bootloader": "boot the phone into Android: `fastboot reboot`",
    "fastboot": "boot the phone into Android: `fastboot reboot`",
}
_ATTRIBUTE = re.compile(r"(?:^|\s)(usb|product|model|device|features|transport_id):(\S*)")


@dataclass(frozen=True)
class FoundPhone:
    """A line of the server's list. state: `device` when it can be used. remedy: what to do when it cannot."""

    serial: str
    state: str
    product: str | None = None
    model: str | None = None
    device: str | None = None
    usb: str | None = None
    transport_id: str | None = None
    remedy: str | None = None

    @property
    def ready(self) -> bool:
        return self.state == "device"


def remedy_for(state: str) -> str | None:
    """What to do about a phone in this state; None when there is nothing to do."""
    if state == "device":
        return None
    for known, remedy in _REMEDIES.items():
        if state.startswith(known):
            return remedy
    return "look at what `adb devices -l` says; unplug the phone and plug it in again"


def parse_devices(text: str) -> list[FoundPhone]:
    """The answer to `host:devices-l`: serial, state and `key:value` words a line. Lines of no use are left out."""
    phones = []
    for line in text.splitlines():
        match = re.match(r"(\(no serial number\)|\S+)\s+(\S.*)", line.strip())
        if match is None:
            continue
        serial, rest = visible(match.group(1)), match.group(2)
        found = {key: visible(value) for key, value in _ATTRIBUTE.findall(rest)}
        state = visible(_ATTRIBUTE.sub("", rest))
        phones.append(
            FoundPhone(
                serial,
                state,
                found.get("product"),
                found.get("model"),
                found.get("device"),
                found.get("usb"),
                found.get("transport_id"),
                remedy_for(state),
            )
        )
    return phones


class AdbServer:
    """The server that the environment names. Starts one, once, when none runs and there is an `adb`; never ends one.

    notice: called with a sentence when a server was started. idle: see `StreamConnection`.
    """

    def __init__(
        self,
        address: ServerAddress | None = None,
        *,
        notice: Callable[[str], None] | None = None,
        idle: float = IDLE_SECONDS,
    ) -> None:
        self.address = address or server_address()
        self.name = f"adb server {self.address}"
        self.started = False
        self._notice, self._idle, self._may_start = notice, idle, True

    def devices(self) -> list[FoundPhone]:
        """Every phone that the server knows, in whatever state."""
        return parse_devices(self.query("host:devices-l", self.name).decode("utf-8", "replace"))

    def open(self, serial: str, *, timeout: float = 10.0) -> ServerConnection:
        """A connection to `serial`, waiting up to `timeout` seconds while it is offline or coming up.

        Raises `PhoneUnauthorized` at once, `PhoneGone` at once when the server has no such phone (unless the server
        was started just now: it needs a moment to see what is plugged in).
        """
        self.wait_until_ready(serial, timeout)
        return ServerConnection(self, serial, idle=self._idle, timeout=timeout)

    def wait_until_ready(self, serial: str, timeout: float, *, revive: bool = False) -> None:
        """Return when the phone can be used. revive: it was there before, so have the server look for it again."""
        start, reset = time.monotonic(), False
        while True:
            late = time.monotonic() >= start + timeout
            try:
                state = visible(self.query(f"host-serial:{serial}:get-state", serial))
                offline = state == "offline"
            except PhoneUnauthorized as error:
                if "still authorizing" not in error.message or late:
                    raise
                offline = False
            except PhoneGone as error:
                absent = "not found" in error.message
                if late or (absent and not revive and not self.started):
                    raise self._explain_absent(serial, error) from error
                if absent and revive and _is_network(serial):
                    self._try(f"host:connect:{serial}", serial)  # the server forgot it when its link broke
                offline = "offline" in error.message
            else:
                if state == "device":
                    return
                if state == "unauthorized" or state.startswith("no permissions"):
                    raise explain_failure(serial, "opening it", state.encode())
                if late:
                    raise PhoneGone(serial, f"the phone is in state '{state}'", do=remedy_for(state))
            if offline and not reset and time.monotonic() >= start + timeout / 3:
                reset = (
                    True  # nobody can be using an offline phone; an answer lost in its handshake needs this
                )
                self._try(f"host-serial:{serial}:reconnect", serial)
            time.sleep(_POLL_SECONDS)

    def _try(self, request: str, serial: str) -> None:
        """A request whose success is seen in the phone's state: its own answer is OKAY even when it failed."""
        with contextlib.suppress(PhoneError):
            self.query(request, serial)

    def _explain_absent(self, serial: str, error: PhoneGone) -> PhoneGone:
        if "not found" not in error.message:
            return error
        phones = self.devices()
        there = ", ".join(f"{phone.serial} ({phone.state})" for phone in phones) or "no phone at all"
        remedy = "plug it in with USB debugging on"
        if _is_network(serial):
            remedy = f"run `adb connect {serial}`, or use --device tcp:{serial}"
        return PhoneGone(serial, f"the adb server has no such phone; it has {there}", do=remedy)

    def query(self, request: str, phone: str) -> bytes:
        """The answer to one request. phone: whom an error is about."""
        clocks = Clocks(phone, f"asking the adb server for {request}", _QUERY_SECONDS)
        sock = self.connect(clocks)
        try:
            stream = SocketStream(sock)
            reader = Reader(stream, clocks)
            send_request(stream, reader, request.encode("utf-8", "surrogateescape"), clocks)
            return reader.exactly(_length(reader, clocks))
        finally:
            sock.close()

    def connect(self, clocks: Clocks) -> socket.socket:
        """A socket to the server, which is started if need be."""
        try:
            return self.address.connect(min(clocks.left(), _QUERY_SECONDS))
        except TimeoutError as error:
            raise clocks.timeout() from error
        except (ConnectionRefusedError, FileNotFoundError) as error:
            if not self._may_start:
                raise PhoneGone(
                    clocks.phone,
                    f"the adb server at {self.address} is gone",
                    do="look at whether another program ended it (an adb of another version does); start it again",
                ) from error
        except OSError as error:
            raise PhoneGone(
                clocks.phone,
                f"no way to the adb server at {self.address}: {error.strerror or error}",
                do="check ADB_SERVER_SOCKET and the network",
            ) from error
        self._may_start = False
        program = start_server(self.address, clocks.phone)
        self.started = True
        if self._notice is not None:
            self._notice(f"no adb server was running: started one with {program}")
        return self.connect(clocks)


class ServerConnection(StreamConnection):
    """A phone through the adb server. Nothing is held open between calls."""

    def __init__(self, server: AdbServer, serial: str, *, idle: float, timeout: float) -> None:
        super().__init__(serial, idle=idle)
        self._server, self._timeout = server, timeout
        self._features: frozenset[str] | None = None

    def features(self) -> frozenset[str]:
        if self._features is None:
            text = self._server.query(f"host-serial:{self.name}:features", self.name).decode(
                "utf-8", "replace"
            )
            self._features = frozenset(word.strip() for word in text.split(",") if word.strip())
        return self._features

    def reconnect(self) -> None:
        self._features = None
        self._server.wait_until_ready(self.name, self._timeout, revive=True)

    def close(self) -> None:
        """Nothing to do."""

    def _open_service(self, service: bytes, clocks: Clocks) -> ByteStream:
        sock = self._server.connect(clocks)
        try:
            stream = SocketStream(sock)
            reader = Reader(stream, clocks, ahead=0)  # what follows the second OKAY is the service's
            transport = b"host:transport:" + self.name.encode("utf-8", "surrogateescape")
            send_request(stream, reader, transport, clocks)
            send_request(stream, reader, service, clocks)
            return stream
        except BaseException:
            sock.close()
            raise


def _is_network(serial: str) -> bool:
    return re.search(r":\d+$", serial) is not None


def send_request(stream: SocketStream, reader: Reader, request: bytes, clocks: Clocks) -> None:
    """Send one request and read OKAY. Raises what FAIL's reason means."""
    stream.write(b"%04x" % len(request) + request, clocks)
    status = reader.exactly(4)
    if status == b"OKAY":
        return
    if status != b"FAIL":
        raise PhoneProtocolError(
            clocks.phone,
            f"answered {status!r}: that is not an adb server",
            do="look at what listens at the adb server's address",
        )
    raise explain_failure(clocks.phone, clocks.doing, reader.exactly(_length(reader, clocks)))


def explain_failure(phone: str, doing: str, reason: bytes) -> PhoneError:
    """The error that the adb server's own words mean."""
    text = visible(reason)
    lowered = text.lower()
    if "unauthorized" in lowered or "authorizing" in lowered:
        return PhoneUnauthorized(
            phone, f"the phone does not trust this computer yet ({text.partition('.')[0]})"
        )
    if "no permissions" in lowered or "insufficient permissions" in lowered:
        return PhoneRefused(phone, "the adb server may not open the phone", text, do=_NO_PERMISSIONS_REMEDY)
    if "offline" in lowered:
        return PhoneGone(phone, f"the adb server says: {text}", do=_REMEDIES["offline"])
    if "not found" in lowered or "still connecting" in lowered or "no devices" in lowered:
        return PhoneGone(phone, f"the adb server says: {text}")
    return refusal(phone, f"refused while {doing}", text)


def _length(reader: Reader, clocks: Clocks) -> int:
    digits = reader.exactly(4)
    if re.fullmatch(rb"[0-9a-fA-F]{4}", digits) is None:
        raise PhoneProtocolError(clocks.phone, f"a length of {digits!r} while {clocks.doing}")
    return int(digits, 16)
