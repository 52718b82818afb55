"""Phones over adb: `open_connection` and `find_phones`.

`--device SERIAL` goes through the adb server (`server.py`, standard library); `tcp:HOST:PORT` and `usb:SERIAL` go
there directly (`direct.py`, over adb-shell). Both are byte streams to the same services, which are written once:
`shell.py` and `sync.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from finet_deploy.devices.adb.connection import Connection, RemoteStat, ShellResult, quote
from finet_deploy.devices.adb.direct import DirectConnection, list_usb, parse_direct
from finet_deploy.devices.adb.errors import (
    NoAdbServer,
    PhoneError,
    PhoneGone,
    PhoneNoSpace,
    PhoneProtocolError,
    PhoneRefused,
    PhoneTimeout,
    PhoneUnauthorized,
    visible,
)
from finet_deploy.devices.adb.server import AdbServer, FoundPhone
from finet_deploy.devices.adb.services import IDLE_SECONDS
from finet_deploy.errors import FinetDeployError, UsageError

__all__ = [
    "AdbServer",
    "Connection",
    "FoundPhone",
    "NoAdbServer",
    "PhoneError",
    "PhoneGone",
    "PhoneNoSpace",
    "PhoneProtocolError",
    "PhoneRefused",
    "PhoneTimeout",
    "PhoneUnauthorized",
    "RemoteStat",
    "ShellResult",
    "find_phones",
    "open_connection",
    "quote",
    "visible",
]


def open_connection(
    spec: str,
    *,
    timeout: float = 10.0,
    authorize: float = 60.0,
    idle: float = IDLE_SECONDS,
    notice: Callable[[str], None] | None = None,
) -> Connection:
    """A connection to `spec`: a serial of the adb server, tcp:HOST[:PORT] or usb:[SERIAL].

    timeout: seconds to connect, and to wait for a phone that is offline. authorize: seconds for the user to accept
    this computer on the phone (direct connections; the adb server fails at once). idle: seconds without a byte after
    which pushing or pulling is given up. notice: called with sentences that the user should read at once.

    Raises the `PhoneError`s, `UsageError` for an impossible `spec`, `FinetDeployError` without adb-shell.
    """
    if (
        not spec
        or len(spec) > 255
        or not spec.isprintable()
        or any(character.isspace() for character in spec)
    ):
        raise UsageError(
            f"no phone can have the name {visible(spec)!r}", do="`finet-deploy devices` lists them"
        )
    from finet_deploy.devices.patience import phase  # it imports this package

    direct = parse_direct(spec) is not None
    with phase("connecting"):
        if direct:
            return DirectConnection(spec, timeout=timeout, authorize=authorize, idle=idle, notice=notice)
        return AdbServer(notice=notice, idle=idle).open(spec, timeout=timeout)


def find_phones(*, notice: Callable[[str], None] | None = None) -> list[FoundPhone]:
    """Every phone of the adb server, in whatever state, with a remedy where it cannot be used.

    Without an adb server and an adb to start one: what libusb sees. Raises `NoAdbServer` when neither way is there.
    """
    server = AdbServer(notice=notice)
    try:
        return server.devices()
    except NoAdbServer as error:
        try:
            phones = list_usb()
        except FinetDeployError:
            raise error from None
        if notice is not None:
            notice(f"{error.message}: looked at USB directly")
        return phones
