"""The direct way to a phone, without an adb: our streams over adb-shell's transports, packets and authentication.

A stream: OPEN is answered by OKAY, or by CLSE when the phone has no such service. One WRTE under way each way; OKAY
says that it was consumed. CLSE ends the stream and is answered by CLSE.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from finet_deploy.devices.adb.errors import (
    PhoneError,
    PhoneGone,
    PhoneProtocolError,
    PhoneRefused,
    PhoneTimeout,
    PhoneUnauthorized,
    visible,
)
from finet_deploy.devices.adb.services import IDLE_SECONDS, StreamConnection
from finet_deploy.devices.adb.stream import ByteStream, Clocks
from finet_deploy.errors import FinetDeployError, UsageError

if TYPE_CHECKING:
    from finet_deploy.devices.adb.links import PacketLink
    from finet_deploy.devices.adb.server import FoundPhone

__all__ = ["DirectConnection", "PacketStream", "list_usb", "parse_banner", "parse_direct"]

_INSTALL = "pip install 'finet-deploy[phone]'"
_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_POLL_SECONDS = 0.25
AUTHORIZE_SECONDS = 60.0  # for the user to read the question on the phone's screen and answer


def parse_direct(spec: str) -> tuple[str, str, int] | None:
    """("tcp", host, port), ("usb", serial, 0), or None when `spec` is a serial for the adb server.

    Raises `UsageError` for `tcp:` without a host or with a port that is none.
    """
    kind, _, rest = spec.partition(":")
    if kind == "usb":
        return "usb", rest, 0
    if kind != "tcp":
        return None
    match = re.fullmatch(r"(\[[0-9a-fA-F:.%\w]+\]|[^\s:\[\]]+)(?::(\d{1,5}))?", rest)
    if match is None or not 0 < int(match.group(2) or 5555) < 65536:
        raise UsageError(f"no address of a phone: {visible(spec)!r}", do="write tcp:HOST or tcp:HOST:PORT")
    return "tcp", match.group(1).strip("[]"), int(match.group(2) or 5555)


def parse_banner(banner: bytes) -> tuple[str, dict[str, str], frozenset[str]]:
    """A phone's banner `STATE::key=value;...;features=a,b`: state, properties, features."""
    state, _, rest = banner.rstrip(b"\0").decode("utf-8", "replace").partition("::")
    pairs = (part.partition("=") for part in rest.split(";") if "=" in part)
    properties = {key.strip(): visible(value, 4096) for key, _, value in pairs}
    features = properties.pop("features", "")
    return visible(state), properties, frozenset(word for word in features.split(",") if word)


class PacketStream:
    """A stream to one service. It acknowledges a packet when it was read, so the phone can fill no memory of ours."""

    def __init__(self, link: PacketLink, local_id: int, give_up: Callable[[], None]) -> None:
        self.block = link.maxdata
        self._link, self._local, self._give_up = link, local_id, give_up
        self._remote = 0
        self._buffer = b""
        self._owed = self._unacknowledged = self._closed = False

    def open(self, service: bytes, clocks: Clocks) -> None:
        """Raises `PhoneRefused` when the phone has no such service."""
        with self._guarded(clocks):
            self._link.post(b"OPEN", self._local, 0, service + b"\0")
            while not self._remote and not self._closed:
                self._step(clocks)
        if self._closed:
            raise PhoneRefused(clocks.phone, f"refused while {clocks.doing}", "closed")

    def read(self, size: int, clocks: Clocks) -> bytes:
        with self._guarded(clocks):
            while not self._buffer and not self._closed:
                self._step(clocks)
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            if self._owed and not self._buffer:
                self._owed = False
                if not self._closed:
                    self._link.post(b"OKAY", self._local, self._remote)
            return data

    def write(self, data: bytes, clocks: Clocks, *, unless_answered: bool = False) -> bool:
        # The wait for OKAY is before the next packet, not after the last: a phone that is busy answering may first
        # want its answer read.
        view = memoryview(data)
        with self._guarded(clocks):
            while view:
                while self._unacknowledged and not (unless_answered and self._buffer):
                    self._step(clocks)
                if self._closed or (unless_answered and self._buffer):
                    return False
                piece, view = view[: self._link.maxdata], view[self._link.maxdata :]
                self._link.post(b"WRTE", self._local, self._remote, piece)
                self._unacknowledged = True
        return True

    def _step(self, clocks: Clocks) -> None:
        """Take one packet. What belongs to an earlier stream is late and of no interest."""
        command, remote, local, data = self._link.receive()
        if local != self._local:
            return
        if command == b"CLSE":
            self._closed, self._unacknowledged = True, False
            if self._remote:
                self._link.post(b"CLSE", self._local, self._remote)
        elif command == b"OKAY" and not self._remote:
            self._remote = remote
        elif remote != self._remote:
            return
        elif command == b"OKAY":
            self._unacknowledged = False
        elif command == b"WRTE":
            if self._owed:
                raise PhoneProtocolError(clocks.phone, "sent data before the last was acknowledged")
            if data:
                self._buffer, self._owed = data, True
            else:
                self._link.post(b"OKAY", self._local, self._remote)

    @contextlib.contextmanager
    def _guarded(self, clocks: Clocks) -> Iterator[None]:
        """Errors in here are the link's, not the service's: it is of no more use after one."""
        from finet_deploy.devices.adb.links import explained

        self._link.set_clocks(clocks)
        try:
            with explained(clocks):
                yield
        except BaseException:
            # After a timeout the phone may be in the middle of a packet, and its command runs on: only a new link is
            # clean.
            self._closed = True
            self._give_up()
            raise

    def close(self) -> None:
        if not self._closed:
            clocks = Clocks(self._link.phone, "closing a stream", _CLOSE_SECONDS)
            with (
                contextlib.suppress(PhoneError),
                self._guarded(clocks),
            ):  # broken: the next call makes a new link
                self._link.post(b"CLSE", self._local, self._remote)
            self._closed = True


class DirectConnection(StreamConnection):
    """A phone at tcp:HOST:PORT or usb:SERIAL. One link for all calls; made anew by the call after one that broke it.

    authorize: seconds that the user has to accept this computer on the phone. notice: called with what to do there.
    Raises `PhoneUnauthorized`, `PhoneGone`, `PhoneTimeout`, and `FinetDeployError` when adb-shell is not installed.
    """

    def __init__(
        self,
        name: str,
        *,
        timeout: float = _CONNECT_SECONDS,
        authorize: float = AUTHORIZE_SECONDS,
        notice: Callable[[str], None] | None = None,
        idle: float = IDLE_SECONDS,
    ) -> None:
        super().__init__(name, idle=idle)
        address = parse_direct(name)
        if address is None:
            raise UsageError(
                f"not a direct address: {visible(name)!r}", do="write tcp:HOST:PORT or usb:SERIAL"
            )
        self._address = address
        self._timeout, self._authorize, self._notice = timeout, authorize, notice
        self._link: PacketLink | None = None
        self._last_id = 0
        self._features: frozenset[str] = frozenset()
        self._link = self._connect()

    def features(self) -> frozenset[str]:
        self._connected()
        return self._features

    def reconnect(self) -> None:
        self.close()
        deadline = time.monotonic() + self._timeout
        while self._link is None:
            try:
                self._link = self._connect()
            except PhoneGone:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            with contextlib.suppress(Exception):  # whatever a broken transport raises, it is let go
                link.close()

    def _connected(self) -> PacketLink:
        if self._link is None:
            self._link = self._connect()
        return self._link

    def _connect(self) -> PacketLink:
        links, keys = _load_adb_shell(), _load_keys()
        link = links.PacketLink(self._transport(links), self.name)
        clocks = Clocks(self.name, "connecting", self._timeout)
        asked = False

        def on_prompt(_: Any) -> None:
            nonlocal asked, clocks
            asked = True
            clocks = Clocks(self.name, "waiting for its user to accept this computer", self._authorize)
            link.set_clocks(clocks)
            if self._notice is not None and self._authorize > 0:
                self._notice(f"{self.name}: unlock the phone and accept 'Allow USB debugging?'")

        try:
            with links.explained(clocks):
                link.start(keys, on_prompt, clocks)
            state, _, self._features = parse_banner(link.banner)
            if state != "device":
                raise PhoneGone(self.name, f"the phone is in state '{state}'", do="boot it into Android")
        except BaseException as error:
            with contextlib.suppress(Exception):
                link.close()
            if asked and isinstance(error, (PhoneTimeout, PhoneGone)):
                raise PhoneUnauthorized(self.name, "nobody accepted this computer on the phone") from error
            raise
        return link

    def _transport(self, links: Any) -> Any:
        kind, place, port = self._address
        if kind == "tcp":
            return links.TcpLink(place, port)
        return _load_usb().find_usb(self.name, place)

    def _open_service(self, service: bytes, clocks: Clocks) -> ByteStream:
        link = self._connected()
        self._last_id = self._last_id % 0xFFFFFFFF + 1
        stream = PacketStream(link, self._last_id, self.close)
        stream.open(service, clocks)
        return stream

    def _max_service(self) -> int:
        return min(super()._max_service(), self._connected().maxdata - 1)


def _load_adb_shell() -> Any:
    try:
        from finet_deploy.devices.adb import links
    except ImportError as error:
        raise FinetDeployError("adb-shell is not installed", do=f"install it: {_INSTALL}") from error
    return links


def _load_keys() -> list[Any]:
    from finet_deploy.devices.adb.keys import load_or_create_key

    return [load_or_create_key()]


def _load_usb() -> Any:
    try:
        from finet_deploy.devices.adb import usb
    except Exception as error:  # libusb is opened by the import and raises errors of its own
        raise FinetDeployError(
            f"USB without an adb server needs adb-shell and libusb: {visible(str(error), 120)}",
            do=f"install them: {_INSTALL}, and your system's libusb-1.0 (Debian: libusb-1.0-0)",
        ) from error
    return usb


def list_usb() -> list[FoundPhone]:
    """Phones that libusb sees. Raises `FinetDeployError` when adb-shell or libusb is missing."""
    phones: list[FoundPhone] = _load_usb().usb_phones()
    return phones
