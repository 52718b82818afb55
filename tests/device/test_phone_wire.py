"""Raw packets to the simulated phone and to AOSP's own adbd: both must answer the same."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.device.oracle import Oracle
from tests.device.phone import Phone, why_not
from tests.device.phone.packets import CLSE, CNXN, OKAY, OPEN, VERSION_MIN, WRTE
from tests.device.phone.scenarios import DONE, SCENARIOS, TMP, Scenario, data, scenario
from tests.device.phone.wire import Wire, shell_packets, sync

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(scope="module")
def phone() -> Iterator[Phone]:
    simulated = Phone()
    simulated.expect_violations = True  # some scenarios break the protocol on purpose
    with simulated:
        yield simulated


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle() as real:
        yield real


@scenario
def environment(port: int) -> Any:
    with Wire(port) as wire:
        lines = wire.run(b"exec:env").data.splitlines()
        return sorted(line for line in lines if not line.startswith((b"ADBD_PORT=", b"_=")))


@scenario
def large_output_is_whole(port: int) -> Any:
    with Wire(port) as wire:
        reply = wire.run(b"shell,v2,raw:i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done")
        return shell_packets(reply.data)


@scenario
def push_makes_parents_and_sets_mode_and_time(port: int) -> Any:
    name = TMP + b"new/deep/file"
    with Wire(port) as wire:
        push = wire.run(
            b"sync:", sync(b"SEND", name + b",33184") + data(b"abc"), data(b"def") + DONE, sync(b"QUIT", b"")
        )
        stamp = struct.pack("<I", 1_600_000_000)  # adbd sets it after its OKAY
        asked = sync(b"STAT", name) + sync(b"QUIT", b"")
        assert wait_for(port, b"sync:", lambda found: found[12:16] == stamp, send=asked)
        state = wire.run(b"sync:", sync(b"STAT", name), sync(b"STAT", TMP + b"new"), sync(b"QUIT", b""))
        back = wire.run(b"sync:", sync(b"RECV", name), sync(b"QUIT", b""))
        return push.data, state.data[:24], back.data, wire.run(b"exec:ls -l " + name).data.split()[:2]


@scenario
def second_protocol_version_of_push_and_pull(port: int) -> Any:
    name = TMP + b"second"
    with Wire(port) as wire:
        setup = b"SND2" + struct.pack("<II", 0o100755, 0)
        push = wire.run(b"sync:", sync(b"SND2", name) + setup + data(b"abc") + DONE, sync(b"QUIT", b""))
        pull = wire.run(b"sync:", sync(b"RCV2", name) + b"RCV2" + bytes(4), sync(b"QUIT", b""))
        return push.data, pull.data, wire.run(b"exec:ls -l " + name).data.split()[:2]


@scenario
def names_of_any_bytes(port: int) -> Any:
    name = b"a b\n$(id)'\"\xff"
    with Wire(port) as wire:
        wire.run(b"sync:", sync(b"SEND", TMP + b"names/" + name + b",33188") + DONE, sync(b"QUIT", b""))
        listed = wire.run(b"sync:", sync(b"LIST", TMP + b"names"), sync(b"QUIT", b"")).data
        return name in listed, listed.count(b"DENT"), listed[-20:]


@scenario
def a_link_is_pushed_as_a_link(port: int) -> Any:
    name = TMP + b"link"
    with Wire(port) as wire:
        push = wire.run(
            b"sync:", sync(b"SEND", name + b",41471") + data(b"/etc/passwd\0") + DONE, sync(b"QUIT", b"")
        )
        return push.data, wire.run(b"exec:readlink " + name).data


@scenario
def pushed_again_replaces(port: int) -> Any:
    name = TMP + b"again"
    with Wire(port) as wire:
        for content in (b"long content", b"short"):
            wire.run(b"sync:", sync(b"SEND", name + b",33188") + data(content) + DONE, sync(b"QUIT", b""))
        return wire.run(b"exec:cat " + name).data


@scenario
def an_interrupted_push_leaves_nothing(port: int) -> Any:
    with Wire(port) as wire:
        local = wire.open(b"sync:")
        wire.collect(local, writes=[sync(b"SEND", TMP + b"half,33188") + data(b"half")], until=0)
        assert wait_for(port, b"exec:ls " + TMP, lambda found: b"half" in found)
    return wait_for(port, b"exec:ls " + TMP, lambda found: b"half" not in found)


@scenario
def a_closed_push_leaves_nothing(port: int) -> Any:
    with Wire(port) as wire:
        local = wire.open(b"sync:")
        reply = wire.collect(local, writes=[sync(b"SEND", TMP + b"closed,33188") + data(b"half")], until=0)
        wire.send(CLSE, local, reply.remote)
        seen = wire.collect(local)
        return seen.closed, wait_for(port, b"exec:ls " + TMP, lambda found: b"closed" not in found)


@scenario
def used_after_close(port: int) -> Any:
    with Wire(port) as wire:
        local = wire.open(b"shell,v2,raw:cat")
        remote = wire.collect(local, until=0).remote
        wire.send(CLSE, local, remote)
        wire.collect(local)
        wire.send(WRTE, local, remote, b"x")
        silence = wire.settle()
        wire.send(OKAY, local, remote)
        late = wire.settle()
        wire.send(CLSE, local, remote)
        return silence, [(name, one == remote, other == local) for name, one, other in late], wire.settle()


@scenario
def packets_for_no_stream(port: int) -> Any:
    with Wire(port) as wire:
        wire.send(WRTE, 77, 88, b"x")
        wire.send(CLSE, 77, 88)
        before = wire.settle()
        wire.send(OKAY, 77, 88)
        return before, wire.settle()


@scenario
def opened_with_id_zero(port: int) -> Any:
    with Wire(port) as wire:
        wire.send(OPEN, 0, 0, b"shell:echo hello\0")
        return wire.settle()


@scenario
def opened_before_the_handshake(port: int) -> Any:
    with Wire(port, connect=False) as wire:
        wire.send(OPEN, 1, 0, b"shell:echo hello\0")
        wire.send(CNXN, 0x01000001, 1 << 20, b"host::features=shell_v2")
        return wire.receive().name, wire.settle()


@scenario
def a_second_handshake(port: int) -> Any:
    with Wire(port) as wire:
        wire.send(CNXN, 0x01000001, 1 << 18, b"host::features=shell_v2")
        again = wire.receive()
        return again.name, again.arg0, again.arg1, wire.run(b"exec:echo hello").data


def raw(*packets: bytes) -> Scenario:
    """What comes back for bytes that no host sends."""

    def play(port: int) -> Any:
        with Wire(port) as wire:
            wire.next_id = 100
            for packet in packets:
                wire.end.sendall(packet)
            return wire.settle()

    return play


def header(command: int, length: int, magic: int) -> bytes:
    return struct.pack("<6I", command, 50, 0, length, 0, magic)


HELLO = b"exec:echo hello\0"
SCENARIOS["wrong_magic"] = raw(header(OPEN, len(HELLO), 1234) + HELLO)
SCENARIOS["nothing_opened"] = raw(header(OPEN, 0, OPEN ^ 0xFFFFFFFF))
SCENARIOS["unknown_command"] = raw(header(0x41414141, 4, 0xBEBEBEBE) + b"data")


@scenario
def a_packet_beyond_a_mebibyte_ends_the_connection(port: int) -> Any:
    with Wire(port) as wire:
        wire.end.sendall(header(OPEN, (1 << 20) + 1, OPEN ^ 0xFFFFFFFF))
        try:
            wire.exactly(1)
        except (EOFError, ConnectionError):
            return "ended"
        return "goes on"


def unverified_checksum(version: int) -> Scenario:
    def play(port: int) -> Any:
        with Wire(port, version=version) as wire:
            local = wire.next_id
            wire.next_id += 1
            wire.send(OPEN, local, 0, b"exec:echo hello\0", bad_checksum=True)
            return wire.collect(local).data

    return play


SCENARIOS["wrong_checksum_with_checksums"] = unverified_checksum(VERSION_MIN)
SCENARIOS["wrong_checksum_without_checksums"] = unverified_checksum(0x01000001)


def handshake(version: int, maxdata: int) -> Scenario:
    def play(port: int) -> Any:
        with Wire(port, version=version, maxdata=maxdata) as wire:
            first = wire.banner
            local = wire.open(b"exec:echo hello")
            opened = wire.receive()
            told = wire.receive()
            return (
                (first.name, first.arg0, first.arg1, first.checksum == sum(first.data), first.data[:8]),
                (opened.name, opened.arg1 == local),
                (told.name, told.data, told.checksum),
            )

    return play


SCENARIOS["handshake_of_the_first_version"] = handshake(VERSION_MIN, 1 << 20)
SCENARIOS["handshake_of_the_second_version"] = handshake(0x01000001, 1 << 20)
SCENARIOS["handshake_of_a_future_version"] = handshake(0x01000009, 1 << 24)
SCENARIOS["handshake_with_small_packets"] = handshake(VERSION_MIN, 4096)


@scenario
def small_packets_are_kept_to(port: int) -> Any:
    with Wire(port, maxdata=4096) as wire:
        name = TMP + b"small"
        push = sync(b"SEND", name + b",33188") + data(bytes(60_000)) + DONE + sync(b"QUIT", b"")
        wire.run(b"sync:", *(push[start : start + 4096] for start in range(0, len(push), 4096)))
        pulled = wire.run(b"sync:", sync(b"RECV", name), sync(b"QUIT", b""))
        return pulled.largest, len(pulled.data)


@scenario
def without_acknowledgement_one_packet_comes(port: int) -> Any:
    with Wire(port) as wire:
        local = wire.open(b"shell,v2,raw:i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; sleep 1")
        first = [wire.receive(), wire.receive()]
        assert all(packet.arg1 == local for packet in first)
        return [packet.name for packet in first], [name for name, _, _ in wire.settle()]


def leaving(start: bytes, marker: bytes, *, limit_s: float = 1.5) -> Scenario:
    """Whether what a stream started ends after the connection is dropped. toybox runs `sleep` in `nohup`'s process."""

    def running(found: bytes) -> bool:
        lines = [line.strip() for line in found.splitlines()]
        return any(line.endswith(marker) and not line.startswith(b"/bin/sh") for line in lines)

    def play(port: int) -> Any:
        with Wire(port) as wire:
            local = wire.open(start)
            wire.collect(local, until=0)
            assert wait_for(port, b"exec:ps -A -o ARGS", running)
        return wait_for(port, b"exec:ps -A -o ARGS", lambda found: not running(found), limit_s=limit_s)

    return play


SCENARIOS["a_foreground_command_dies_with_the_cable"] = leaving(
    b"shell,v2,raw:sleep 111.1", b"sleep 111.1", limit_s=20.0
)
SCENARIOS["nohup_survives"] = leaving(
    b"shell,v2,raw:nohup sleep 222.2 >/dev/null 2>&1 </dev/null & sleep 9", b"sleep 222.2"
)
SCENARIOS["setsid_survives"] = leaving(
    b"shell,v2,raw:setsid sleep 333.3 >/dev/null 2>&1 </dev/null & sleep 9", b"sleep 333.3"
)
SCENARIOS["redirected_background_survives"] = leaving(
    b"shell,v2,raw:sleep 444.4 >/dev/null 2>&1 </dev/null & sleep 9", b"sleep 444.4"
)


def wait_for(
    port: int, service: bytes, wanted: Callable[[bytes], bool], *, limit_s: float = 20.0, send: bytes = b""
) -> bool:
    """Whether the service's output becomes what is wanted in time."""
    deadline = time.monotonic() + limit_s
    while True:
        with Wire(port) as wire:
            if wanted(wire.run(service, *([send] if send else [])).data):
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_the_simulator_answers_as_adbd_does(name: str, phone: Phone, oracle: Oracle) -> None:
    play = SCENARIOS[name]
    assert play(phone.port) == play(oracle.port)
