"""The faults of the emulated phones: each strikes where and when it should, and spoils nothing else."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.device.oracle import Oracle
from tests.device.phone import Phone, why_not
from tests.device.phone.packets import CNXN, WRTE
from tests.device.phone.wire import Wire, command, push, sync, wait_for

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

TMP = b"/data/local/tmp/"
OK = b"OKAY\0\0\0\0"


@pytest.fixture(scope="module")
def phone() -> Iterator[Phone]:
    with Phone("tensorg3") as simulated:
        yield simulated


@pytest.fixture(autouse=True)
def no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "phone" in request.fixturenames:
        request.getfixturevalue("phone").clear_faults()


def gone(action: Callable[[], object]) -> bool:
    try:
        action()
    except (EOFError, ConnectionError):
        return True
    return False


def test_a_cut_comes_at_its_byte_of_a_push_and_once(phone: Phone) -> None:
    phone.set_fault("cut", when="^send:.*cut", after_bytes=300_000)
    with Wire(phone.port) as wire:
        assert push(wire, TMP + b"other", bytes(400_000)).data == OK
        assert gone(lambda: push(wire, TMP + b"cut", bytes(400_000)))
    with Wire(phone.port) as wire:
        assert push(wire, TMP + b"cut", bytes(400_000)).data == OK


def test_a_cut_on_the_way_out_leaves_a_part(phone: Phone) -> None:
    phone.set_fault("cut", when="seq", direction="out", after_bytes=10_000)
    assert gone(lambda: command(phone.port, b"seq 100000"))
    assert command(phone.port, b"seq 3") == (0, b"1\n2\n3\n", b"")


def test_a_stalled_link_is_open_and_silent_and_goes_on(phone: Phone) -> None:
    phone.set_fault("stall", when="stalled", value=0.5)
    start = time.monotonic()
    assert command(phone.port, b"sleep 0.1; echo stalled")[1] == b"stalled\n"
    assert time.monotonic() - start >= 0.5


def test_a_slow_link_is_slow(phone: Phone) -> None:
    phone.set_fault("rate", when="^send:slow|slow", value=500_000)
    start = time.monotonic()
    with Wire(phone.port) as wire:
        assert push(wire, TMP + b"slow", bytes(400_000)).data == OK
    assert time.monotonic() - start >= 0.5


def test_no_space_comes_at_its_byte_with_the_kernel_s_words(phone: Phone) -> None:
    phone.set_fault("no_space", when="^send:", after_bytes=100_000)
    with Wire(phone.port) as wire:
        assert push(wire, TMP + b"big", bytes(200_000)).data == sync(
            b"FAIL", b"write failed: No space left on device"
        )
    assert not phone.path("/data/local/tmp/big").exists()


def test_a_corrupting_phone_says_okay(phone: Phone) -> None:
    phone.set_fault("corrupt", when="^send:", after_bytes=70_000)
    with Wire(phone.port) as wire:
        assert push(wire, TMP + b"corrupt", bytes(200_000)).data == OK
    stored = phone.path("/data/local/tmp/corrupt").read_bytes()
    assert [place for place, byte in enumerate(stored) if byte] == [70_000]


def test_a_lie_about_a_hash(phone: Phone) -> None:
    phone.path("/data/local/tmp/hashed").write_bytes(b"x")
    phone.set_fault("lie", when="sha256sum")
    truth = hashlib.sha256(b"x").hexdigest().encode()
    assert command(phone.port, b"sha256sum " + TMP + b"hashed")[1].split()[0] not in (truth, b"")
    assert command(phone.port, b"sha256sum " + TMP + b"hashed")[1].split()[0] == truth


@pytest.mark.parametrize("kind", ["noise", "silent"])
def test_output_is_spoilt_and_the_status_true(kind: str, phone: Phone) -> None:
    phone.set_fault(kind, when="echo hello")
    status, out, _ = command(phone.port, b"echo hello; exit 5")
    assert status == 5
    assert out != b"hello\n"
    assert len(out) == (6 if kind == "noise" else 0)


@pytest.mark.parametrize("kind", ["endless", "garbage"])
def test_output_that_never_ends(kind: str, phone: Phone) -> None:
    phone.set_fault(kind, when="echo hello")
    with Wire(phone.port) as wire:
        local = wire.open(b"shell,v2,raw:echo hello")
        assert len(wire.collect(local, until=4_000_000).data) >= 4_000_000
    assert command(phone.port, b"echo hello")[1] == b"hello\n"


def test_refused_and_late_services(phone: Phone) -> None:
    phone.set_fault("refuse", when="^sync:")
    phone.set_fault("delay", when="late", value=0.3)
    with Wire(phone.port) as wire:
        assert not wire.run(b"sync:").opened
        assert wire.run(b"sync:", sync(b"QUIT", b"")).opened
        start = time.monotonic()
        assert wire.run(b"exec:echo late").data == b"late\n"
        assert time.monotonic() - start >= 0.3


def test_wrong_checksums_are_sent(phone: Phone) -> None:
    phone.set_fault("bad_checksum")
    with Wire(phone.port, version=0x01000000) as wire:
        assert wire.banner.checksum != sum(wire.banner.data)


@pytest.mark.parametrize("kind", ["hang_up", "babble"])
def test_a_phone_that_does_not_greet(kind: str, phone: Phone) -> None:
    phone.set_fault(kind)
    if kind == "hang_up":
        assert gone(lambda: Wire(phone.port))
    else:
        with Wire(phone.port, connect=False) as wire:
            wire.send(CNXN, 0x01000001, 1 << 20, b"host::")
            assert len(wire.exactly(4096)) == 4096
    with Wire(phone.port) as wire:
        assert wire.banner.name == "CNXN"


def test_the_low_memory_killer_takes_only_what_matches(phone: Phone) -> None:
    phone.set_fault("kill", when="sleep 54", after_s=0.2, target=r"^sleep 54")
    with Wire(phone.port) as wire:
        keeper = wire.open(b"shell,v2,raw:sleep 53.1")
        wire.collect(keeper, until=0)
        assert command(phone.port, b"sleep 54.1")[0] == 137
        assert "sleep 53.1" in phone.processes()
    wait_for(lambda: "sleep 53.1" not in phone.processes())


def test_a_reboot_kills_closes_and_comes_back_with_its_data() -> None:
    with Phone() as own:
        own.path("/data/local/tmp/kept").write_text("kept")
        before = command(
            own.port, b"cat /proc/sys/kernel/random/boot_id; nohup sleep 99 >/dev/null 2>&1 </dev/null &"
        )
        wait_for(lambda: "nohup sleep 99" in own.processes())
        own.reboot(0.3)
        wait_for(lambda: not own.processes())
        wait_for(lambda: not gone(lambda: Wire(own.port)))
        after = command(own.port, b"cat /proc/sys/kernel/random/boot_id")
        assert after[1] not in (before[1], b"")
        assert command(own.port, b"cat " + TMP + b"kept")[1] == b"kept"
        assert float(command(own.port, b"cat /proc/uptime")[1].split()[0]) < 60
        wait_for(lambda: command(own.port, b"getprop sys.boot_completed")[1] == b"1\n")


def test_an_unplugged_phone_is_away_and_what_was_detached_runs_on(phone: Phone) -> None:
    with Wire(phone.port) as wire:
        local = wire.open(b"shell,v2,raw:setsid sleep 65.1 >/dev/null 2>&1 </dev/null & sleep 66.1")
        wire.collect(local, until=0)
        wait_for(lambda: {"setsid sleep 65.1", "sleep 66.1"} <= set(phone.processes()))
        phone.strike("unplug")
        assert gone(lambda: wire.exactly(1))
    assert gone(lambda: Wire(phone.port))
    wait_for(lambda: phone.processes() == ["setsid sleep 65.1"])
    phone.clear_faults()
    phone.strike("kill", target="sleep 65.1")
    phone.strike("unplug", value=0.2)
    wait_for(lambda: not gone(lambda: Wire(phone.port)))


def test_a_revoked_key_is_refused_until_it_is_cleared(phone: Phone) -> None:
    with Wire(phone.port) as wire:
        phone.strike("revoke")
        assert gone(lambda: wire.exactly(1))
    with Wire(phone.port) as wire:
        assert wire.banner.name == "AUTH"
    phone.clear_faults()
    with Wire(phone.port) as wire:
        assert wire.banner.name == "CNXN"


@pytest.mark.parametrize("kind", ["garbage", "endless"])
def test_a_pull_that_never_ends(kind: str, phone: Phone) -> None:
    phone.path("/data/local/tmp/pulled").write_bytes(b"x")
    phone.set_fault(kind, when="^recv:.*pulled")
    with Wire(phone.port) as wire:
        local = wire.open(b"sync:")
        reply = wire.collect(local, writes=[sync(b"RECV", TMP + b"pulled")], until=1_000_000)
        assert (reply.data[:4] == b"DATA") == (kind == "endless")
    with Wire(phone.port) as wire:
        pulled = wire.run(b"sync:", sync(b"RECV", TMP + b"pulled"), sync(b"QUIT", b""))
        assert pulled.data[8:9] == b"x"


def test_an_impatient_host_breaks_the_test() -> None:
    with pytest.raises(AssertionError, match="WRTE before the OKAY"), Phone() as own, Wire(own.port) as wire:
        local = wire.open(b"shell,v2,raw:cat >/dev/null; sleep 1")
        remote = wire.collect(local, until=0).remote
        for _ in range(50):
            wire.send(WRTE, local, remote, b"\0\1\0\0\0x" * 5000)
        wait_for(lambda: own.state()["violations"])


def test_the_relay_cuts_stalls_and_slows_the_real_adbd() -> None:
    with Oracle() as oracle:
        oracle.set_fault("cut", after_bytes=300_000)
        with Wire(oracle.port) as wire:
            assert gone(lambda: push(wire, TMP + b"cut", bytes(800_000)))
        wait_for(lambda: command(oracle.port, b"ls " + TMP)[1] == b"")
        oracle.set_fault("rate", value=500_000)
        start = time.monotonic()
        with Wire(oracle.port) as wire:
            assert push(wire, TMP + b"slow", bytes(400_000)).data == OK
        assert time.monotonic() - start >= 0.5
        oracle.set_fault("stall", value=0.4)
        start = time.monotonic()
        assert command(oracle.port, b"echo hello")[1] == b"hello\n"
        assert time.monotonic() - start >= 0.4
        oracle.reboot(0.2)
        wait_for(lambda: not gone(lambda: command(oracle.port, b"true")))
        assert float(command(oracle.port, b"cat /proc/uptime")[1].split()[0]) < 60


def test_a_small_data_partition_is_full_in_the_real_adbd() -> None:
    with Oracle(data_bytes=1 << 20) as oracle, Wire(oracle.port) as wire:
        assert push(wire, TMP + b"big", bytes(3 << 20)).data == sync(
            b"FAIL", b"write failed: No space left on device"
        )
