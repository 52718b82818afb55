"""adb-shell's USB transport with its errors explained. Never run on real USB: see the README's list of what is untried.

Imports adb-shell and libusb: only `direct.py` imports this module, when a phone is wanted that way.
"""

from __future__ import annotations

import usb1
from adb_shell.transport.usb_transport import UsbTransport

from finet_deploy.devices.adb.errors import PhoneError, PhoneGone, PhoneRefused
from finet_deploy.devices.adb.server import FoundPhone, remedy_for
from finet_deploy.devices.adb.stream import Clocks

__all__ = ["UsbLink", "find_usb", "usb_phones"]

_BUSY_REMEDY = "an adb server (or another program) owns the phone: use its serial without `usb:`"
_PERMISSION = "no permissions"


class UsbLink(UsbTransport):
    """A USB transport that obeys `clocks` and raises `PhoneError`s."""

    clocks: Clocks

    def connect(self, transport_timeout_s: float | None = None) -> None:
        try:
            super().connect(None)
        except usb1.USBError as error:
            raise explain_usb(self.clocks.phone, error) from error
        self._packet_size = max(
            (endpoint.getMaxPacketSize() for endpoint in self._setting.iterEndpoints()), default=512
        )

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None = None) -> bytes:
        # Empty data is a packet that ended a transfer, not the end: the next read blocks, so nothing spins.
        handle = self._open_handle()
        try:
            data = bytes(handle.bulkRead(self._read_endpoint, numbytes, timeout=self._milliseconds()))
        except usb1.USBError as error:
            raise self._explain(error) from error
        self.clocks.progress()
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None = None) -> int:
        view = memoryview(data)
        while view:
            view = view[self._write(bytes(view)) :]
        if len(data) % self._packet_size == 0:
            self._write(
                b""
            )  # adb's own host code ends such a transfer with an empty packet; the phone waits for it
        return len(data)

    def _write(self, data: bytes) -> int:
        handle = self._open_handle()
        try:
            sent = int(handle.bulkWrite(self._write_endpoint, data, timeout=self._milliseconds()))
        except usb1.USBError as error:
            raise self._explain(error) from error
        if data and not sent:
            raise self.clocks.gone()
        self.clocks.progress()
        return sent

    def _open_handle(self) -> usb1.USBDeviceHandle:
        if self._transport is None:
            raise self.clocks.gone()
        return self._transport

    def _milliseconds(self) -> int:
        return max(1, round(self.clocks.left() * 1000))  # libusb takes 0 for "no limit"

    def _explain(self, error: usb1.USBError) -> PhoneError:
        if isinstance(error, usb1.USBErrorTimeout):
            return self.clocks.timeout()
        return explain_usb(self.clocks.phone, error)


def explain_usb(phone: str, error: usb1.USBError) -> PhoneError:
    """What a libusb error means for the user."""
    if isinstance(error, usb1.USBErrorBusy):
        return PhoneRefused(phone, "the phone's adb interface is taken", str(error), do=_BUSY_REMEDY)
    if isinstance(error, usb1.USBErrorAccess):
        return PhoneRefused(phone, "this user may not open the phone", str(error), do=remedy_for(_PERMISSION))
    return PhoneGone(phone, f"the USB link broke ({error})")


def _serial(link: UsbTransport) -> tuple[str | None, usb1.USBError | None]:
    """The serial, or why it cannot be read."""
    try:
        return link.serial_number, None
    except usb1.USBError as error:
        return None, error


def find_usb(phone: str, serial: str) -> UsbLink:
    """The phone with this serial; with an empty one the only phone there is. Raises `PhoneError`."""
    try:
        links = [(link, *_serial(link)) for link in UsbLink.find_all_adb_devices()]
    except usb1.USBError as error:
        raise explain_usb(phone, error) from error
    matching = [link for link, found, _ in links if not serial or found == serial]
    if len(matching) == 1:
        return matching[0]
    if matching:
        names = ", ".join(f"usb:{found}" for _, found, _ in links)
        raise PhoneGone(phone, f"more than one phone is plugged in: {names}", do="name one of them")
    troubles = [error for _, _, error in links if error is not None]
    if troubles:
        raise explain_usb(phone, troubles[0])
    names = ", ".join(f"usb:{found}" for _, found, _ in links) or "no phone with USB debugging on"
    raise PhoneGone(phone, f"not plugged in; USB has {names}")


def usb_phones() -> list[FoundPhone]:
    """Phones with USB debugging on, seen by libusb without an adb server. Raises `PhoneError`."""
    try:
        links = [_serial(link) for link in UsbLink.find_all_adb_devices()]
    except usb1.USBError as error:
        raise explain_usb("usb", error) from error
    return [
        FoundPhone(f"usb:{serial}", "device")
        if serial is not None
        else FoundPhone("(no serial number)", f"{_PERMISSION} ({error})", remedy=remedy_for(_PERMISSION))
        for serial, error in links
    ]
