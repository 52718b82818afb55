"""Google's own adb client against the simulated phone: everything that we use, as another program understands it.

Two clients: the one on PATH (Debian's `adb` package) and the one fetched with adbd.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.device.phone import Fault, Phone, why_not
from tests.device.phone.userland import ADB, rootfs

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

TMP = "/data/local/tmp"
KIB64 = 64 << 10


def free_port() -> int:
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        return end.getsockname()[1]


def client_command(which: str) -> list[str]:
    """The client's command line; skips when it is not there."""
    if which == "installed":
        found = shutil.which("adb")
        if found is None:
            pytest.skip("no adb on PATH: apt-get install adb")
        return [found]
    root = rootfs()
    libraries = ":".join(str(path) for path in (root / "usr/lib").glob("*-linux-gnu*/"))
    android = ":".join(str(path) for path in (root / "usr/lib").glob("*-linux-gnu*/android/"))
    loader = next((root / "usr/lib64").glob("ld-linux*.so.2")).resolve()
    return [str(loader), "--library-path", f"{libraries}:{android}", str(root / ADB)]


class Client:
    """An adb client with a server of its own, on a port and with keys of its own."""

    def __init__(self, command: list[str], home: Path) -> None:
        self.command = command
        self.environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "ANDROID_ADB_SERVER_PORT": str(free_port()),
        }
        self.log = open(home / "server.log", "wb")  # noqa: SIM115 - as long as the server
        self.server = subprocess.Popen(
            [*command, "server", "nodaemon"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        self.serial = ""
        wait_for(lambda: self.run("devices", serial=False).returncode == 0)

    def close(self) -> None:
        self.server.kill()
        self.server.wait()
        self.log.close()

    def run(
        self, *words: str, serial: bool = True, limit_s: float = 120.0
    ) -> subprocess.CompletedProcess[bytes]:
        chosen = ["-s", self.serial] if serial else []
        return subprocess.run(
            [*self.command, *chosen, *words],
            env=self.environment,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=limit_s,
            check=False,
        )

    def shell(self, line: str) -> tuple[int, bytes, bytes]:
        done = self.run("shell", line)
        return done.returncode, done.stdout, done.stderr

    def connect(self, phone: Phone) -> None:
        """Connect and wait until the phone is a device."""
        self.serial = phone.address
        self.run("connect", phone.address, serial=False)
        wait_for(lambda: self.run("get-state").stdout.strip() == b"device")

    def text(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done
        return done.stdout.decode()


def wait_for(condition: Callable[[], object], *, limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module", params=["installed", "fetched"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    running = Client(client_command(request.param), tmp_path_factory.mktemp("home"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def phone(client: Client) -> Iterator[Phone]:
    with Phone("kirin980", auth="prompt") as simulated:
        client.connect(simulated)
        yield simulated


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_the_key_is_offered_once_and_known_afterwards(client: Client) -> None:
    with Phone(auth="prompt") as own:
        client.connect(own)
        client.run("disconnect", own.address, serial=False)
        client.connect(own)
        state = own.state()
        assert len(state["offered_keys"]) == 1
        assert state["connections"] >= 2
        client.run("disconnect", own.address, serial=False)


def test_an_unknown_key_stays_unauthorized(client: Client) -> None:
    with Phone(auth="known") as own:
        client.run("connect", own.address, serial=False)
        client.serial = own.address
        wait_for(lambda: b"unauthorized" in client.run("devices", serial=False).stdout)
        refused = client.run("shell", "id")
        assert refused.returncode == 1
        assert b"unauthorized" in refused.stderr
        assert own.state()["services"] == []
        client.run("disconnect", own.address, serial=False)


@pytest.fixture
def connected(client: Client, phone: Phone) -> Client:
    """The client, with the shared phone's serial."""
    client.serial = phone.address
    return client


def test_the_phone_is_listed_with_its_model(connected: Client) -> None:
    assert f"{connected.serial} " in connected.text("devices", "-l")
    assert "model:PCT_L29" in connected.text("devices", "-l")
    assert "shell_v2" in connected.text("features")


def test_a_command_gives_status_and_both_outputs(connected: Client) -> None:
    assert connected.shell("echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")
    assert connected.shell("kill -9 $$")[0] == 137
    assert connected.shell("getprop ro.product.model") == (0, b"PCT-L29\n", b"")


def test_bytes_pass_through_a_command(connected: Client, phone: Phone) -> None:
    raw = content(200_001)
    phone.path(f"{TMP}/raw").write_bytes(raw)
    assert connected.run("exec-out", f"cat {TMP}/raw").stdout == raw
    command = [*connected.command, "-s", connected.serial, "shell", "-T", "cat"]
    done = subprocess.run(
        command, env=connected.environment, input=raw, capture_output=True, timeout=60, check=False
    )
    assert done.stdout == raw


def test_much_output_is_whole(connected: Client) -> None:
    """32 MB of zeros, made by the phone."""
    status, out, _ = connected.shell("head -c 32000000 /dev/zero")
    assert (status, len(out), out.count(b"\0")) == (0, 32_000_000, 32_000_000)


@pytest.mark.parametrize("size", [0, 1, KIB64 - 1, KIB64, KIB64 + 1, 100 << 20])
def test_a_file_comes_back_as_it_went(size: int, connected: Client, phone: Phone, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(content(size))
    digest = hashlib.sha256(there.read_bytes()).hexdigest()
    assert connected.run("push", str(there), f"{TMP}/file").returncode == 0
    assert connected.shell(f"sha256sum {TMP}/file")[1].split()[0].decode() == digest
    assert connected.run("pull", f"{TMP}/file", str(back)).returncode == 0
    assert hashlib.sha256(back.read_bytes()).hexdigest() == digest
    assert phone.path(f"{TMP}/file").stat().st_size == size


def test_mode_and_time_are_kept(connected: Client, phone: Phone, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/system/bin/sh\necho ran\n")
    script.chmod(0o755)
    os.utime(script, (1_600_000_000, 1_600_000_000))
    connected.text("push", str(script), f"{TMP}/script")
    assert connected.shell(f"{TMP}/script") == (0, b"ran\n", b"")
    assert phone.path(f"{TMP}/script").stat().st_mtime == 1_600_000_000


def test_folders_are_listed_pushed_and_pulled(connected: Client, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name in ("a", "with space", "quote'", "deep/er/file"):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content(len(name)))
    connected.text("push", str(folder), TMP)
    listed = connected.text("ls", f"{TMP}/folder")
    assert {line.split(" ", 3)[3] for line in listed.splitlines()} == {
        ".",
        "..",
        "a",
        "with space",
        "quote'",
        "deep",
    }
    connected.text("pull", f"{TMP}/folder", str(tmp_path / "back"))
    for path in folder.rglob("*"):
        if path.is_file():
            assert (tmp_path / "back" / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_refused_transfers_tell_the_phone_s_reason(connected: Client, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(content(2 << 20))
    for target, reason in (
        ("/data/denied", b"Permission denied"),
        ("/system/denied", b"Read-only file system"),
    ):
        done = connected.run("push", str(source), target)
        assert done.returncode == 1
        assert reason in done.stdout + done.stderr
    missing = connected.run("pull", f"{TMP}/missing", str(tmp_path / "missing"))
    assert missing.returncode == 1
    assert b"No such file" in missing.stdout + missing.stderr + b" does not exist: No such file"


def test_a_full_phone_is_told(client: Client, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(content(3 << 20))
    with Phone(data_bytes=1 << 20) as own:
        client.connect(own)
        done = client.run("push", str(source), f"{TMP}/file")
        assert done.returncode == 1
        assert b"No space left on device" in done.stdout + done.stderr
        assert client.shell(f"ls {TMP}") == (0, b"", b"")
        client.run("disconnect", own.address, serial=False)


def test_an_interrupted_push_leaves_nothing(connected: Client, phone: Phone, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(content(64 << 20))
    phone.set_fault(Fault("rate", when="^send:", value=4e6))
    push = subprocess.Popen(
        [*connected.command, "-s", connected.serial, "push", str(source), f"{TMP}/half"],
        env=connected.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    half = phone.path(f"{TMP}/half")
    wait_for(lambda: half.exists() and half.stat().st_size > 100_000)
    push.send_signal(signal.SIGKILL)
    push.wait()
    phone.clear_faults()
    wait_for(lambda: not half.exists())
    assert connected.shell("echo alive") == (0, b"alive\n", b"")


def test_a_rebooted_phone_comes_back(client: Client) -> None:
    with Phone("snapdragon710") as own:
        client.connect(own)
        before = client.shell("cat /proc/sys/kernel/random/boot_id")[1]
        own.path(f"{TMP}/kept").write_text("kept")
        client.run("reboot", limit_s=20)
        wait_for(lambda: client.run("get-state").stdout.strip() != b"device")
        client.run("disconnect", own.address, serial=False)
        wait_for(lambda: b"connected to" in client.run("connect", own.address, serial=False).stdout)
        client.connect(own)
        after = client.shell("cat /proc/sys/kernel/random/boot_id")[1]
        assert after not in (before, b"")
        assert client.shell(f"cat {TMP}/kept")[1] == b"kept"
        assert float(client.shell("cat /proc/uptime")[1].split()[0]) < 60
        wait_for(lambda: client.shell("getprop sys.boot_completed")[1] == b"1\n")
        client.run("disconnect", own.address, serial=False)
