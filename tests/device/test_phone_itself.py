"""The emulated phones: the personality is what the profile says, and aarch64 programs run."""

from __future__ import annotations

import base64
import contextlib
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.device.oracle import Oracle
from tests.device.phone import KINDS, Fault, Phone, parse_fault, why_not
from tests.device.phone.auth import parse_public_key, verify
from tests.device.phone.namespaces import QEMU
from tests.device.phone.packets import (
    AUTH,
    CLSE,
    CNXN,
    MAX_PAYLOAD,
    OKAY,
    OPEN,
    WRTE,
    BadPacket,
    decode_header,
)
from tests.device.phone.sandbox import Sandbox
from tests.device.phone.wire import Wire, command
from tests.device.profiles import load_profile, profile_names
from tests.device.profiles.render import cpu_list

REASON = why_not()
needs_phone = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(scope="module")
def phone() -> Iterator[Phone]:
    with Phone("tensorg3") as simulated:
        yield simulated


@needs_phone
@pytest.mark.parametrize("kind", [Phone, Oracle])
@pytest.mark.parametrize("name", profile_names())
def test_the_phone_is_what_its_profile_says(name: str, kind: type[Sandbox]) -> None:
    profile = load_profile(name)
    with kind(name) as own:
        text = command(own.port, b"getprop")[1].decode()
        for key, value in profile.properties.items():
            assert f"[{key}]: [{value}]\n" in text
        assert command(own.port, b"getprop no.such; getprop no.such fallback")[1] == b"\nfallback\n"
        assert command(own.port, b"dumpsys battery")[1].startswith(b"Current Battery Service state:\n")
        heat = command(own.port, b"dumpsys thermalservice")
        assert (b"Thermal Status: 0" in heat[1]) == bool(profile.sensors) == (b"Can't find" not in heat[2])
        cores = command(own.port, b"cat /sys/devices/system/cpu/possible; grep -c ^processor /proc/cpuinfo")[
            1
        ]
        assert cores.split() == [f"0-{len(profile.cores) - 1}".encode(), str(len(profile.cores)).encode()]
        tops = command(own.port, b"cat /sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_max_freq")[1].split()
        assert [int(top) for top in tops] == [
            profile.cluster_of(core).frequencies[-1] for core in profile.cores
        ]
        denied = command(own.port, b"cat /sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_cur_freq")
        assert denied[0] == 1
        assert b"Permission denied" in denied[2]
        assert command(own.port, b"echo x > /etc/passwd")[0] != 0
        assert command(own.port, b"id -u; uname -m")[1] == b"2000\naarch64\n"


@needs_phone
def test_what_a_test_changes_the_phone_shows(phone: Phone) -> None:
    phone.personality.set_property("ro.odd", b"a\n'\"$(id)\xff")
    assert command(phone.port, b"getprop ro.odd")[1] == b"a\n'\"$(id)\xff\n"
    assert b"[ro.odd]: [a\n'\"$(id)\xff]\n" in command(phone.port, b"getprop")[1]
    phone.personality.set_battery(level=7)
    assert b"  level: 7\n" in command(phone.port, b"dumpsys battery")[1]
    phone.strike("overheat", value=90.0)
    assert b"Thermal Status: 3" in command(phone.port, b"dumpsys thermalservice")[1]
    cap = b"cat /sys/devices/system/cpu/cpu8/cpufreq/scaling_max_freq"
    assert int(command(phone.port, cap)[1]) <= 0.6 * 2_914_000
    phone.personality.cool()
    assert int(command(phone.port, cap)[1]) == 2_914_000
    phone.personality.set_online([0, 1, 2, 3])
    assert command(phone.port, b"ls -d /sys/devices/system/cpu/cpu8/cpufreq")[0] == 1
    assert command(phone.port, b"taskset 100 true")[0] == 1
    phone.personality.set_online(phone.profile.cores)
    assert command(phone.port, b"taskset 100 echo ran") == (0, b"ran\n", b"")
    assert command(phone.port, b"taskset 0xf true")[0] == 1


@needs_phone
def test_time_passes_on_the_phone(phone: Phone) -> None:
    line = b"cat /proc/uptime /sys/devices/system/cpu/cpufreq/policy8/stats/time_in_state"
    first = command(phone.port, line)[1].split()
    second = command(phone.port, b"sleep 0.5; " + line)[1].split()
    assert float(second[0]) - float(first[0]) >= 0.4
    assert sum(map(int, second[3::2])) > sum(map(int, first[3::2]))


# A whole aarch64 program: write(1, "aarch64\n", 8); exit(42)
CODE = struct.pack(
    "<8I", 0xD2800020, 0x100000E1, 0xD2800102, 0xD2800808, 0xD4000001, 0xD2800540, 0xD2800BA8, 0xD4000001
)


def tiny_program() -> bytes:
    base, entry = 0x400000, 0x400000 + 64 + 56
    total = 64 + 56 + len(CODE) + 8
    head = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 183, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, total, total, 0x10000) + CODE + b"aarch64\n"


@needs_phone
@pytest.mark.parametrize("kind", [Phone, Oracle])
def test_aarch64_programs_run(kind: type[Sandbox]) -> None:
    if shutil.which(QEMU) is None:
        pytest.skip(f"no {QEMU}: apt-get install qemu-user-static")
    with kind() as own:
        if "binfmt_misc" in own.log():
            pytest.skip(own.log().strip())
        program = own.path("/data/local/tmp/program")
        program.write_bytes(tiny_program())
        program.chmod(0o755)
        assert command(own.port, b"/data/local/tmp/program") == (42, b"aarch64\n", b"")


# parts that need no phone


def test_every_profile_is_complete() -> None:
    assert {"snapdragon855", "kirin980", "snapdragon710"} < set(profile_names())
    for name in profile_names():
        profile = load_profile(name)
        assert profile.cores == list(range(len(profile.cores)))
        assert max(cluster.capacity for cluster in profile.clusters) == 1024
        for cluster in profile.clusters:
            assert list(cluster.frequencies) == sorted(set(cluster.frequencies))


def test_faults_are_read_from_text_and_bad_ones_refused() -> None:
    assert parse_fault("cut,when=^send:,after_bytes=5,times=none") == Fault("cut", "^send:", 5, times=None)
    for text in (
        "nonsense",
        "cut,after_bytes",
        "cut,what=1",
        "rate",
        "kill",
        "cut,direction=up",
        "cut,after_bytes=x",
    ):
        with pytest.raises(ValueError):
            parse_fault(text)
    assert len(KINDS) >= 15


def test_the_readme_has_every_fault() -> None:
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    assert [kind for kind, what in KINDS.items() if f"| `{kind}` | {what} |" not in text] == []


@given(
    st.text(max_size=60)
    | st.sampled_from(["cut", "rate", "kill"]).flatmap(lambda kind: st.just(kind + ",value="))
)
def test_any_text_is_a_fault_or_refused(text: str) -> None:
    try:
        fault = parse_fault(text)
    except ValueError:
        return
    assert fault.kind in KINDS


@given(st.binary(min_size=24, max_size=24))
def test_any_header_is_a_packet_or_refused(head: bytes) -> None:
    try:
        packet, length = decode_header(head)
    except BadPacket:
        return
    assert 0 <= length <= MAX_PAYLOAD
    assert packet.magic_is_right == (packet.command ^ 0xFFFFFFFF == int.from_bytes(head[20:24], "little"))


@given(st.binary(max_size=600) | st.binary(min_size=524, max_size=524).map(base64.b64encode))
def test_any_bytes_are_a_key_or_refused(text: bytes) -> None:
    try:
        key = parse_public_key(text)
    except ValueError:
        return
    assert key.modulus.bit_length() == 2048


@given(st.lists(st.integers(0, 200), unique=True))
def test_core_lists_are_linux_s(cores: list[int]) -> None:
    text = cpu_list(cores)
    back = [range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1) for part in text.split(",") if part]
    assert [core for part in back for core in part] == sorted(cores)


@needs_phone
def test_nothing_that_a_host_sends_ends_the_phone(phone: Phone) -> None:
    phone.expect_violations = True
    dice = random.Random(4)
    for _ in range(30):
        with contextlib.suppress(OSError, EOFError), Wire(phone.port) as wire:
            local = wire.open(dice.choice([b"sync:", b"shell,v2,raw:cat", b"exec:cat", dice.randbytes(20)]))
            remote = wire.receive().arg0
            for _ in range(dice.randrange(4)):
                kind = dice.choice([OPEN, WRTE, OKAY, CLSE, CNXN, AUTH, dice.randrange(1 << 32)])
                wire.send(kind, dice.choice([0, local, 99]), dice.choice([0, remote, 99]), dice.randbytes(40))
    assert command(phone.port, b"echo alive") == (0, b"alive\n", b"")
    assert not [text for text in phone.state()["violations"] if "simulator failed" in text]


def test_signatures_are_checked_as_rsa_does() -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    modulus = private.public_key().public_numbers().n
    token = bytes(range(20))
    signature = private.sign(token, padding.PKCS1v15(), Prehashed(hashes.SHA1()))
    n0inv = -pow(modulus, -1, 1 << 32) % (1 << 32)
    raw = struct.pack("<II", 64, n0inv) + modulus.to_bytes(256, "little")
    raw += pow(2, 4096, modulus).to_bytes(256, "little") + struct.pack("<I", 65537)
    key = parse_public_key(base64.b64encode(raw) + b" user@host\0")
    assert key.modulus == modulus
    assert verify(key, token, signature)
    assert not verify(key, bytes(20), signature)
    assert not verify(key, token, signature[:-1] + bytes([signature[-1] ^ 1]))
    for bad in (b"", b"!!!", base64.b64encode(raw[:-1]), base64.b64encode(bytes(524))):
        with pytest.raises(ValueError):
            parse_public_key(bad)
