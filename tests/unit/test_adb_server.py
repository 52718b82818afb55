"""The adb server's protocol: finding it, starting one, the states of phones, answers that make no sense."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.devices import adb
from finet_deploy.devices.adb import (
    AdbServer,
    FoundPhone,
    NoAdbServer,
    PhoneGone,
    PhoneProtocolError,
    PhoneRefused,
    PhoneUnauthorized,
    find_phones,
    open_connection,
)
from finet_deploy.devices.adb.adb_program import ServerAddress, find_adb, server_address
from finet_deploy.devices.adb.server import parse_devices, remedy_for
from finet_deploy.errors import UsageError
from tests.unit.adb_peer import FakeServer
from tests.unit.adb_scripts import shell_says

SERVICES = {b"shell,v2,raw:": shell_says(b"fine")}


@pytest.fixture
def server(monkeypatch):
    with FakeServer(SERVICES) as peer:
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{peer.port}")
        yield peer


# ---- where the server is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, ServerAddress("127.0.0.1", 5037)),
        ({"ANDROID_ADB_SERVER_PORT": "6000"}, ServerAddress("127.0.0.1", 6000)),
        ({"ANDROID_ADB_SERVER_ADDRESS": "lab"}, ServerAddress("lab", 5037)),
        ({"ADB_SERVER_SOCKET": "tcp:lab:7", "ANDROID_ADB_SERVER_PORT": "1"}, ServerAddress("lab", 7)),
        ({"ADB_SERVER_SOCKET": "tcp:7"}, ServerAddress("127.0.0.1", 7)),
        ({"ADB_SERVER_SOCKET": "tcp:[::1]:7"}, ServerAddress("::1", 7)),
        ({"ADB_SERVER_SOCKET": "localfilesystem:/run/adb"}, ServerAddress(path="/run/adb")),
        ({"ADB_SERVER_SOCKET": "localabstract:adb"}, ServerAddress(path="\0adb")),
    ],
)
def test_the_environment_names_the_server(environment, address):
    assert server_address(environment) == address


@pytest.mark.parametrize(
    "environment",
    [
        {"ADB_SERVER_SOCKET": "tcp:"},
        {"ADB_SERVER_SOCKET": "tcp:lab:0"},
        {"ADB_SERVER_SOCKET": "tcp:lab:99999"},
        {"ADB_SERVER_SOCKET": "lab:5037"},
        {"ANDROID_ADB_SERVER_PORT": "many"},
        {"ANDROID_ADB_SERVER_PORT": "٣"},
    ],
)
def test_an_address_that_cannot_be_is_a_usage_error(environment):
    with pytest.raises(UsageError):
        server_address(environment)


def test_a_unix_socket_works_as_well(tmp_path, monkeypatch, server):
    import socket

    path = tmp_path / "adb.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def answer() -> None:
        for _ in range(2):
            sock, _ = listener.accept()
            server.serve(sock)
            sock.close()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    unix = AdbServer(ServerAddress(path=str(path)))
    assert unix.open("PHONE").shell  # two requests: the state, and:
    assert [phone.serial for phone in unix.devices()] == ["PHONE"]
    thread.join(5)
    listener.close()


# ---- starting one --------------------------------------------------------------------------------------------------


def fake_adb(folder: Path, script: str) -> Path:
    program = folder / "adb"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def only_path(tmp_path, monkeypatch):
    """A PATH with nothing but what the test puts into the folder, and a shell's own programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "sleep", "touch"):
        (folder / name).symlink_to(Path("/bin") / name)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    return folder


def test_a_server_is_started_once_when_none_runs_and_said_so(tmp_path, only_path):
    peer = FakeServer(SERVICES)  # refuses connections until the fake adb was run
    log, ready = tmp_path / "log", tmp_path / "ready"
    fake_adb(only_path, f'echo "$@" >> {log}; while [ ! -e {ready} ]; do sleep 0.02; done')

    def start() -> None:
        while not log.exists():
            time.sleep(0.02)
        peer.__enter__()
        ready.touch()

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    notices: list[str] = []
    server = AdbServer(ServerAddress(port=peer.port), notice=notices.append)
    assert [phone.serial for phone in server.devices()] == ["PHONE"]
    assert server.open("PHONE").shell("id").stdout == b"fine"
    assert log.read_text() == "start-server\n"
    assert len(notices) == 1 and str(only_path / "adb") in notices[0]
    thread.join(5)
    peer.__exit__()


def test_a_running_server_is_left_alone(only_path, server, tmp_path):
    log = tmp_path / "log"
    fake_adb(only_path, f'echo "$@" >> {log}')
    open_connection("PHONE").shell("id")
    find_phones()
    assert not log.exists()
    assert not any("kill" in request for request in server.requests)


def test_a_server_that_ends_later_is_gone_and_not_started_a_second_time(tmp_path, only_path):
    log = tmp_path / "log"
    fake_adb(only_path, f'echo "$@" >> {log}')  # claims success, and no server is there
    server = AdbServer(ServerAddress(port=FakeServer({}).port))
    for _ in range(2):
        with pytest.raises(PhoneGone, match="is gone"):
            server.devices()
    assert log.read_text() == "start-server\n"


@pytest.mark.parametrize(
    ("script", "words"), [("echo $PPID: cannot bind >&2; exit 1", "cannot bind"), ("exit 7", "exit status 7")]
)
def test_an_adb_that_cannot_start_a_server_is_quoted(only_path, script, words):
    fake_adb(only_path, script)
    with pytest.raises(NoAdbServer, match=words):
        AdbServer(ServerAddress(port=FakeServer({}).port)).devices()


def test_without_adb_the_error_says_what_to_do(only_path, monkeypatch):
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:{FakeServer({}).port}")
    with pytest.raises(NoAdbServer, match=r"no adb on PATH.*PHONE.*tcp:HOST:PORT"):
        open_connection("PHONE")


def test_no_server_is_started_for_an_address_on_another_host(only_path, tmp_path):
    log = tmp_path / "log"
    fake_adb(only_path, f"touch {log}")
    address = ServerAddress("127.0.0.2", FakeServer({}).port)
    with pytest.raises(NoAdbServer, match="on that host"):
        AdbServer(address).devices()
    assert not log.exists()


def test_adb_is_found_in_the_sdk_when_it_is_not_on_the_path(only_path, tmp_path, monkeypatch):
    assert find_adb() is None
    tools = tmp_path / "sdk" / "platform-tools"
    tools.mkdir(parents=True)
    program = fake_adb(tools, "")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    assert find_adb() == program


# ---- phones and their states ---------------------------------------------------------------------------------------

LISTING = """\
0A1B2C3D               device usb:1-4 product:redfin model:Pixel_5 device:redfin transport_id:3
192.168.0.7:5555       offline transport_id:4
emulator-5554          unauthorized transport_id:5
(no serial number)     no permissions (user in plugdev group; are your udev rules wrong?); see [http://x] usb:1-2
"""


def test_the_servers_list_is_read_with_a_remedy_for_each_state():
    phones = parse_devices(LISTING)
    assert phones[0] == FoundPhone("0A1B2C3D", "device", "redfin", "Pixel_5", "redfin", "1-4", "3", None)
    assert phones[0].ready and not any(phone.ready for phone in phones[1:])
    assert [phone.serial for phone in phones[1:]] == [
        "192.168.0.7:5555",
        "emulator-5554",
        "(no serial number)",
    ]
    offline, unauthorized, denied = (phone.remedy or "" for phone in phones[1:])
    assert "plug it in again" in offline and "Allow USB debugging" in unauthorized and "udev" in denied
    assert phones[3].state.startswith("no permissions (user in plugdev group") and phones[3].usb == "1-2"


@given(st.text())
def test_any_list_is_read_without_an_error_and_printable(text):
    for phone in parse_devices(text):
        assert phone.serial and phone.serial.isprintable() and phone.state.isprintable()
        assert phone.ready or phone.remedy


def test_find_phones_lists_what_the_server_has(server):
    server.states["OTHER"] = "unauthorized"
    assert [(phone.serial, phone.state, phone.ready) for phone in find_phones()] == [
        ("PHONE", "device", True),
        ("OTHER", "unauthorized", False),
    ]


def test_find_phones_looks_at_usb_when_there_is_no_adb(only_path, monkeypatch):
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:{FakeServer({}).port}")
    monkeypatch.setattr(adb, "list_usb", lambda: [FoundPhone("usb:X", "device")])
    notices: list[str] = []
    assert [phone.serial for phone in find_phones(notice=notices.append)] == ["usb:X"]
    assert "looked at USB" in notices[0]


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("unauthorized", PhoneUnauthorized, "Allow USB debugging"),
        ("offline", PhoneGone, "plug it in again"),
        ("no permissions (missing udev rules?)", PhoneRefused, "udev"),
        ("recovery", PhoneGone, "adb reboot"),
        ("strange", PhoneGone, "adb devices -l"),
    ],
)
def test_a_phone_that_cannot_be_used_is_an_error_with_a_remedy(server, state, error, words):
    server.states["PHONE"] = state
    with pytest.raises(error, match=words) as caught:
        open_connection("PHONE", timeout=0.1)
    assert caught.value.phone == "PHONE"


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", PhoneUnauthorized),
        ("device still authorizing", PhoneUnauthorized),
        ("device offline", PhoneGone),
        ("device 'PHONE' not found", PhoneGone),
        ("insufficient permissions for device", PhoneRefused),
        ("closed", PhoneRefused),
    ],
)
def test_a_phone_that_was_lost_meanwhile_is_named_by_the_servers_reason(server, reason, error):
    phone = open_connection("PHONE", timeout=0.1)
    server.answers["host:transport:PHONE"] = FakeServer._fail(reason)
    with pytest.raises(error):
        phone.shell("id")


def test_a_serial_that_is_not_there_names_those_that_are(server):
    with pytest.raises(PhoneGone, match=r"PHONE \(device\)"):
        open_connection("NOBODY")


def test_a_network_serial_that_is_not_there_says_how_to_connect_it(server):
    with pytest.raises(PhoneGone, match="adb connect 10.0.0.1:5555"):
        open_connection("10.0.0.1:5555")


def test_a_phone_that_comes_up_in_time_is_waited_for(server):
    server.states["PHONE"] = "offline"
    threading.Timer(0.4, lambda: server.states.update(PHONE="device")).start()
    assert open_connection("PHONE", timeout=20).shell("id").stdout == b"fine"


def test_a_phone_that_stays_offline_is_reset_once_and_one_in_use_never(server):
    server.states["PHONE"] = "offline"
    phone = open_connection("PHONE", timeout=6)
    assert phone.shell("id").stdout == b"fine"
    assert server.requests.count("host-serial:PHONE:reconnect") == 1
    phone.reconnect()
    assert server.requests.count("host-serial:PHONE:reconnect") == 1

    server.states["PHONE"], server.requests[:] = "offline", []
    server.answers["host-serial:PHONE:reconnect"] = FakeServer._text("reconnecting")  # and nothing happens
    with pytest.raises(PhoneGone, match="offline"):
        open_connection("PHONE", timeout=1.5)
    assert server.requests.count("host-serial:PHONE:reconnect") == 1


def test_a_network_phone_that_the_server_forgot_is_connected_again(server):
    server.states = {"10.0.0.1:5555": "device"}
    phone = open_connection("10.0.0.1:5555")
    server.states = {}
    phone.reconnect()
    assert "host:connect:10.0.0.1:5555" in server.requests
    assert phone.shell("id").stdout == b"fine"


def test_a_phone_that_does_not_come_back_is_gone(server):
    phone = open_connection("PHONE", timeout=0.3)
    server.states = {}
    with pytest.raises(PhoneGone, match="no phone at all"):
        phone.reconnect()


# ---- answers that make no sense ------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400", b"OKAY-001", b"OKAY0x1f", b"FAILzzzz"])
def test_something_else_at_the_servers_address_is_told(server, answer):
    server.answers["host:devices-l"] = answer
    with pytest.raises(PhoneProtocolError):
        find_phones()


@pytest.mark.parametrize("answer", [b"", b"OK", b"OKAY", b"OKAY0010short", b"FAIL0010short"])
def test_an_answer_that_breaks_off_is_gone(server, answer):
    server.answers["host:devices-l"] = answer
    with pytest.raises(PhoneGone):
        find_phones()


@pytest.mark.parametrize(
    "spec", ["", " ", "a b", "a\nb", "\x1b[2J", "x" * 300, "tcp:", "tcp::5", "tcp:h:99999"]
)
def test_a_name_that_no_phone_can_have_is_a_usage_error(spec):
    with pytest.raises(UsageError):
        open_connection(spec)


def test_every_state_but_one_has_a_remedy():
    assert remedy_for("device") is None
    assert all(remedy_for(state) for state in ("unauthorized", "host", "", "no permissions; see"))


def test_the_module_needs_no_adb_shell():
    code = "import sys; import finet_deploy.devices.adb; assert 'adb_shell' not in sys.modules, 1"
    import subprocess
    import sys

    assert subprocess.run([sys.executable, "-c", code], env={**os.environ}).returncode == 0
