"""The direct way: authentication, what the repaired adb-shell does with a phone that misbehaves, USB's errors."""

from __future__ import annotations

import resource
import sys
from types import SimpleNamespace

import pytest

from finet_deploy.devices.adb import (
    PhoneError,
    PhoneGone,
    PhoneProtocolError,
    PhoneRefused,
    PhoneTimeout,
    PhoneUnauthorized,
    direct,
    open_connection,
)
from finet_deploy.devices.adb.stream import Clocks
from finet_deploy.errors import FinetDeployError
from tests.unit.adb_peer import FakePhone, packet
from tests.unit.adb_scripts import Files, Pipe, shell_packet, shell_says

pytest.importorskip("adb_shell", reason="the direct way needs adb-shell")

from finet_deploy.devices.adb import keys
from tests.unit.test_adb_keys import verify

SERVICES = {b"shell,v2,raw:": shell_says(b"fine"), b"sync:": Files()}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


def connect(peer: FakePhone, **options):
    return open_connection(f"tcp:127.0.0.1:{peer.port}", **options)


# ---- authentication ------------------------------------------------------------------------------------------------


def test_a_phone_that_knows_the_key_lets_us_in_without_asking():
    known = keys.load_or_create_key().GetPublicKey()
    seen: list[int] = []

    def authorize(kind: int, data: bytes) -> bool:
        seen.append(kind)
        return kind == 2 and verify(known, bytes(range(20)), data)

    notices: list[str] = []
    with FakePhone(SERVICES, authorize=authorize) as peer:
        assert connect(peer, notice=notices.append).shell("id").stdout == b"fine"
    assert seen == [2] and notices == []


def test_a_phone_that_does_not_asks_its_user_and_we_say_so():
    public: list[bytes] = []

    def authorize(kind: int, data: bytes) -> bool:
        if kind == 3:
            public.append(data)
        return kind == 3

    notices: list[str] = []
    with FakePhone(SERVICES, authorize=authorize) as peer:
        assert connect(peer, notice=notices.append).shell("id").stdout == b"fine"
    assert public == [keys.load_or_create_key().GetPublicKey() + b"\0"]
    assert len(notices) == 1 and "Allow USB debugging" in notices[0]


@pytest.mark.parametrize("answer", ["never", "disconnect"])
def test_a_user_who_does_not_accept_is_unauthorized(answer):
    def authorize(kind: int, data: bytes) -> bool:
        if kind == 3 and answer == "disconnect":
            raise OSError
        return False

    with (
        FakePhone(SERVICES, authorize=authorize) as peer,
        pytest.raises(PhoneUnauthorized, match="Allow USB debugging"),
    ):
        connect(peer, authorize=0.3)


def test_a_token_of_another_size_is_an_error():
    with FakePhone(SERVICES, authorize=lambda kind, data: True) as peer:
        peer.token = b"short"
        with pytest.raises(PhoneProtocolError):
            connect(peer)


# ---- connecting ----------------------------------------------------------------------------------------------------


def test_a_port_that_nobody_listens_on_is_gone():
    with pytest.raises(PhoneGone, match="adb tcpip"):
        open_connection(f"tcp:127.0.0.1:{FakePhone({}).port}")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 200])
def test_a_host_that_is_none_is_gone(host):
    with pytest.raises(PhoneGone):
        open_connection(f"tcp:{host}:5555", timeout=5)


def test_a_phone_that_never_says_hello_times_out():
    with FakePhone(SERVICES) as peer:
        peer.hello = b""
        with pytest.raises(PhoneTimeout, match="connecting"):
            connect(peer, timeout=0.3)


@pytest.mark.parametrize(
    ("hello", "error", "words"),
    [
        (b"FAIL0010unknown host ser", PhoneProtocolError, "adb server's own port"),
        (packet(b"CNXN", 1, 4096, b"device::", checksum=1), PhoneProtocolError, "checksum"),
        (packet(b"CNXN", 1, 16, b"device::"), PhoneProtocolError, "packets of 16 bytes"),
        (packet(b"CNXN", 1, 4096, b"recovery::"), PhoneGone, "recovery"),
        (packet(b"STLS", 0x01000000, 0), PhoneRefused, "adb pair"),
        (packet(b"WHAT", 0, 0), PhoneProtocolError, "no adb packet"),
        (packet(b"CNXN", 1, 4096)[:12] + b"\xff" * 12, PhoneProtocolError, "no adb packet"),
        (packet(b"AUTH", 9, 0, bytes(20)), PhoneProtocolError, "AUTH"),
    ],
)
def test_a_hello_that_makes_no_sense_is_told(hello, error, words):
    with FakePhone(SERVICES) as peer:
        peer.hello = hello
        with pytest.raises(error, match=words):
            connect(peer)


def test_a_payload_of_4_gib_is_refused_before_a_byte_of_it_is_read():
    head = bytearray(packet(b"CNXN", 1, 4096))
    head[12:16] = b"\xff\xff\xff\xff"
    with FakePhone(SERVICES) as peer:
        peer.hello = bytes(head)
        with pytest.raises(PhoneProtocolError):
            connect(peer)


# ---- streams -------------------------------------------------------------------------------------------------------


def test_a_damaged_packet_ends_the_link_and_the_next_call_makes_a_new_one():
    def damaged(pipe, service: bytes) -> None:
        if service.endswith(b"bad"):
            pipe.socket.sendall(packet(b"WRTE", pipe.local, pipe.remote, b"xyz", checksum=1))
            pipe.hang()
        shell_says(b"fine")(pipe, service)

    with FakePhone({b"shell,v2,raw:": damaged}) as peer:
        phone = connect(peer)
        with pytest.raises(PhoneProtocolError, match="damaged"):
            phone.shell("bad")
        assert phone.shell("good").stdout == b"fine" and peer.connections == 2


def test_packets_of_an_ended_stream_are_ignored():
    def late(pipe) -> None:
        pipe.socket.sendall(packet(b"WRTE", pipe.local, pipe.remote, shell_packet(1, b"from before")))
        pipe.socket.sendall(packet(b"OKAY", pipe.local, pipe.remote))
        pipe.socket.sendall(packet(b"CLSE", pipe.local, pipe.remote))

    with FakePhone({b"sync:": Files({b"/x": bytes(500_000)}), b"shell,v2,raw:": shell_says(b"fine")}) as peer:
        peer.late = late
        phone = connect(peer)
        with pytest.raises(PhoneProtocolError, match="larger than"):
            phone.pull("/x", keys.Path.home() / "x", max_bytes=10)
        assert phone.shell("id").stdout == b"fine" and peer.connections == 1


def test_a_phone_that_does_not_wait_for_acknowledgement_loses_none_of_its_data_silently():
    def flood(pipe, service: bytes) -> None:
        pipe.socket.sendall(packet(b"WRTE", pipe.local, pipe.remote, b"data") * 2)
        pipe.hang()

    with FakePhone({b"sync:": flood}) as peer:
        clocks = Clocks("PHONE", "testing", 20)
        stream = connect(peer)._open_service(b"sync:", clocks)
        stream.write(b"first", clocks)
        with pytest.raises(PhoneProtocolError, match="before the last was acknowledged"):
            stream.write(b"second", clocks)  # waits for the first one's OKAY, reads nothing


def test_a_closed_link_costs_no_processor_time():
    def end(pipe: Pipe, service: bytes) -> None:
        pipe.end()

    with FakePhone({b"shell,v2,raw:": end}) as peer:
        phone = connect(peer)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        with pytest.raises(PhoneError):
            phone.shell("id", timeout=5)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 2, "it spun until the timeout"


def test_a_phone_that_does_not_come_back_is_gone_and_one_that_does_is_found():
    with FakePhone(SERVICES) as peer:
        phone = connect(peer, timeout=0.3)
    with pytest.raises(PhoneGone):
        phone.reconnect()
    with pytest.raises(PhoneGone):
        phone.shell("id")


def test_commands_are_limited_by_what_the_phone_takes():
    with FakePhone(SERVICES, maxdata=4096) as peer:
        phone = connect(peer)
        with pytest.raises(FinetDeployError, match="too long for adb"):
            phone.shell("x" * 5000)
        assert phone.shell("x" * 4000).status == 0


# ---- what is not installed, and USB --------------------------------------------------------------------------------


def test_without_adb_shell_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "finet_deploy.devices.adb.links", raising=False)
    monkeypatch.setitem(sys.modules, "adb_shell", None)
    monkeypatch.delattr("finet_deploy.devices.adb.links", raising=False)
    with pytest.raises(FinetDeployError, match=r"pip install 'finet-deploy\[phone\]'"):
        open_connection("tcp:127.0.0.1:1")


def test_without_libusb_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "finet_deploy.devices.adb.usb", raising=False)
    monkeypatch.delattr("finet_deploy.devices.adb.usb", raising=False)
    monkeypatch.setitem(sys.modules, "usb1", None)
    with pytest.raises(FinetDeployError, match="libusb"):
        direct.list_usb()
    with pytest.raises(FinetDeployError, match="libusb"):
        open_connection("usb:X")


@pytest.fixture
def usb():
    pytest.importorskip("usb1", reason="needs libusb", exc_type=(ImportError, OSError))
    from finet_deploy.devices.adb import usb

    return usb


class FakeUsb:
    """A phone as libusb shows it: `serial_number` raises when it is an error."""

    def __init__(self, serial) -> None:
        self._serial = serial

    @property
    def serial_number(self):
        if isinstance(self._serial, Exception):
            raise self._serial
        return self._serial


def test_usb_finds_a_phone_by_serial_and_explains_when_it_cannot(usb, monkeypatch):
    import usb1

    def plug(*serials) -> None:
        phones = [FakeUsb(serial) for serial in serials]
        monkeypatch.setattr(usb.UsbLink, "find_all_adb_devices", lambda: iter(phones))

    plug("A", "B")
    assert usb.find_usb("usb:B", "B").serial_number == "B"
    with pytest.raises(PhoneGone, match="usb:A, usb:B"):
        usb.find_usb("usb:C", "C")
    with pytest.raises(PhoneGone, match="more than one phone"):
        usb.find_usb("usb:", "")
    plug("A")
    assert usb.find_usb("usb:", "").serial_number == "A"
    plug()
    with pytest.raises(PhoneGone, match="no phone with USB debugging"):
        usb.find_usb("usb:", "")
    plug("A", usb1.USBErrorAccess())
    with pytest.raises(PhoneRefused, match="udev"):
        usb.find_usb("usb:C", "C")
    found = usb.usb_phones()
    assert [(phone.serial, phone.ready) for phone in found] == [
        ("usb:A", True),
        ("(no serial number)", False),
    ]
    assert "udev" in found[1].remedy


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("USBErrorBusy", PhoneRefused, "adb server .* owns the phone"),
        ("USBErrorAccess", PhoneRefused, "udev"),
        ("USBErrorNoDevice", PhoneGone, "cable"),
        ("USBErrorTimeout", PhoneTimeout, "while testing"),
    ],
)
def test_usb_errors_become_the_family(usb, name, error, words):
    import usb1

    def broken(*_: object, **__: object) -> None:
        raise getattr(usb1, name)()

    setting = SimpleNamespace(iterEndpoints=list, getNumber=lambda: 0)
    link = usb.UsbLink(SimpleNamespace(open=broken), setting)
    link.clocks = Clocks("usb:X", "testing", 60)
    link._transport = SimpleNamespace(bulkRead=broken, bulkWrite=broken)
    link._packet_size = 512
    for call in (lambda: link.bulk_read(24), lambda: link.bulk_write(b"data")):
        with pytest.raises(PhoneError, match=words) as caught:
            call()
        assert isinstance(caught.value, error)


def test_usb_ends_a_transfer_of_whole_packets_with_an_empty_one(usb):
    sent: list[bytes] = []

    def write(endpoint: int, data: bytes, timeout: int) -> int:
        assert timeout > 0
        sent.append(bytes(data))
        return min(len(data), 1000)  # and takes no more than that at once

    link = usb.UsbLink(SimpleNamespace(), SimpleNamespace())
    link.clocks = Clocks("usb:X", "testing", 60)
    link._transport, link._packet_size = SimpleNamespace(bulkWrite=write), 512
    link.bulk_write(bytes(24))
    link.bulk_write(bytes(1024))
    assert [len(data) for data in sent] == [24, 1024, 24, 0]
