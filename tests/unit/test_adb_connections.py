"""One set of promises, over both ways to a phone: an adb server, and the phone's own daemon."""

from __future__ import annotations

import os
import random
import stat
import time
from pathlib import Path

import pytest

from finet_deploy.devices.adb import (
    AdbServer,
    Connection,
    PhoneGone,
    PhoneNoSpace,
    PhoneProtocolError,
    PhoneRefused,
    PhoneTimeout,
    RemoteStat,
    open_connection,
    quote,
)
from finet_deploy.devices.adb.adb_program import ServerAddress
from finet_deploy.devices.adb.sync import MAX_CHUNK
from finet_deploy.errors import FinetDeployError, UsageError
from tests.unit.adb_peer import FakePhone, FakeServer
from tests.unit.adb_scripts import Files, Pipe, Script, fail, shell_packet, shell_says

pytest.importorskip("adb_shell", reason="the direct way needs adb-shell")

SHORT = 0.5  # seconds of silence, for the tests that wait for its end; the others keep the long default


@pytest.fixture(params=["server", "direct"])
def connect(request, tmp_path, monkeypatch):
    """`connect(services, **peer options) -> (connection, peer)`; everything is closed at the end."""
    monkeypatch.setenv("HOME", str(tmp_path))
    opened = []

    def open_it(
        services: dict[bytes, Script], *, idle: float = 30.0, **options: object
    ) -> tuple[Connection, FakeServer | FakePhone]:
        if request.param == "server":
            peer: FakeServer | FakePhone = FakeServer(services, **options)  # type: ignore[arg-type]
            peer.__enter__()
            connection: Connection = AdbServer(ServerAddress(port=peer.port), idle=idle).open("PHONE")
        else:
            peer = FakePhone(services, **options)  # type: ignore[arg-type]
            peer.__enter__()
            connection = open_connection(f"tcp:127.0.0.1:{peer.port}", idle=idle)
        opened.append((connection, peer))
        return connection, peer

    yield open_it
    for connection, peer in opened:
        connection.close()
        peer.__exit__()


def random_file(folder: Path, size: int) -> Path:
    path = folder / f"file_{size}"
    path.write_bytes(random.Random(size).randbytes(size))
    return path


# ---- commands ------------------------------------------------------------------------------------------------------


def test_a_command_gives_both_outputs_as_bytes_and_its_status(connect):
    phone, _ = connect({b"shell,v2,raw:": shell_says(b"out\xff\0", b"err\r\n", 3)})
    result = phone.shell("anything")
    assert (result.stdout, result.stderr, result.status) == (b"out\xff\0", b"err\r\n", 3)


def test_the_command_arrives_as_it_was_given(connect):
    seen = []

    def script(pipe: Pipe, service: bytes) -> None:
        seen.append(service)
        shell_says()(pipe, service)

    phone, _ = connect({b"shell,v2,raw:": script})
    words = ["a'b", '"', "$(reboot)", "new\nline", "ü", "\udcff"]
    phone.shell(quote("echo", *words))
    assert seen == [b"shell,v2,raw:" + quote("echo", *words).encode("utf-8", "surrogateescape")]


def test_large_output_arrives_whole(connect):
    data = random.Random(0).randbytes(3_000_000)
    phone, _ = connect({b"shell,v2,raw:": shell_says(data, b"e" * 70_000, 137)})
    result = phone.shell("cat big")
    assert result.stdout == data and result.stderr == b"e" * 70_000 and result.status == 137


def test_output_without_end_is_cut_off_with_an_error_and_the_next_command_works(connect):
    def endless(pipe: Pipe, service: bytes) -> None:
        if service.endswith(b"yes"):
            while True:
                pipe.write(shell_packet(1, b"y\n" * 10_000))
        shell_says(b"fine")(pipe, service)

    phone, _ = connect({b"shell,v2,raw:": endless})
    with pytest.raises(PhoneProtocolError, match="more than 100000 bytes"):
        phone.shell("yes", max_bytes=100_000)
    assert phone.shell("id").stdout == b"fine"


def test_an_end_without_a_status_is_gone_and_never_a_result(connect):
    def cut_short(pipe: Pipe, service: bytes) -> None:
        pipe.write(shell_packet(1, b"part of the output"))

    phone, _ = connect({b"shell,v2,raw:": cut_short})
    with pytest.raises(PhoneGone, match="link ended while running `benchmark`"):
        phone.shell("benchmark")


@pytest.mark.parametrize("end", ["cut", "end"])
def test_a_link_that_breaks_in_a_command_is_gone_and_no_timeout(connect, end):
    def script(pipe: Pipe, service: bytes) -> None:
        pipe.write(shell_packet(1, b"part"))
        getattr(pipe, end)()

    phone, _ = connect({b"shell,v2,raw:": script})
    with pytest.raises(PhoneGone):
        phone.shell("benchmark", timeout=30)


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"timeout": 0.4}, "not done after 0.4 s"), ({"timeout": 20.0, "idle": 0.4}, "silent for 0.4 s")],
)
def test_each_clock_ends_a_silent_command_and_the_next_one_works(connect, limits, words):
    def silent(pipe: Pipe, service: bytes) -> None:
        if service.endswith(b"hang"):
            pipe.hang()
        shell_says(b"fine")(pipe, service)

    phone, _ = connect({b"shell,v2,raw:": silent})
    with pytest.raises(PhoneTimeout, match=words):
        phone.shell("hang", **limits)
    assert phone.shell("id").stdout == b"fine"


def test_a_command_that_answers_before_its_input_was_taken_does_not_lock_up(connect):
    """A phone may want its answer acknowledged before it takes anything more from us."""

    def script(pipe: Pipe, service: bytes) -> None:
        pipe.eager = False
        for _ in range(3):
            pipe.write(shell_packet(1, b"x" * 5000))
        pipe.write(shell_packet(3, b"\0"))

    phone, _ = connect({b"shell,v2,raw:": script})
    assert phone.shell("id", timeout=10).stdout == b"x" * 15_000


def test_the_idle_clock_counts_silence_only(connect):
    def slow(pipe: Pipe, service: bytes) -> None:
        for _ in range(20):
            time.sleep(0.15)
            pipe.write(shell_packet(1, b"."))
        pipe.write(shell_packet(3, b"\0"))

    phone, _ = connect({b"shell,v2,raw:": slow})
    assert phone.shell("slow", idle=2.5).stdout == b"." * 20  # 3 s in all, never silent for long


def test_a_steady_trickle_does_not_outlive_the_total_clock(connect):
    def trickle(pipe: Pipe, service: bytes) -> None:
        while True:
            time.sleep(0.05)
            pipe.write(shell_packet(1, b"."))

    phone, _ = connect({b"shell,v2,raw:": trickle})
    with pytest.raises(PhoneTimeout, match="not done after 0.6 s"):
        phone.shell("trickle", timeout=0.6, idle=10)


def test_a_service_that_the_phone_lacks_is_refused_at_once(connect):
    phone, _ = connect({b"sync:": Files()})
    with pytest.raises(PhoneRefused) as caught:
        phone.shell("id")
    assert caught.value.reason == "closed"


def test_without_shell_v2_the_status_comes_with_the_output(connect):
    def plain(pipe: Pipe, service: bytes) -> None:
        assert service.startswith(b"shell:( exit 3 # a comment\n)")
        mark = service.rpartition(b'"')[0].rpartition(b'"')[2].removesuffix(b"$?")
        pipe.write(b"out" + mark + b"3\r\n")

    phone, _ = connect({b"shell:": plain}, features="cmd")
    result = phone.shell("exit 3 # a comment")
    assert (result.stdout, result.status) == (b"out", 3)


def test_without_shell_v2_no_output_can_pass_for_the_status(connect):
    def lies(pipe: Pipe, service: bytes) -> None:
        pipe.write(b"__rc=0\n")

    phone, _ = connect({b"shell:": lies}, features="cmd")
    with pytest.raises(PhoneGone):
        phone.shell("id")


@pytest.mark.parametrize("junk", [b"\x07\x01\0\0\0x", shell_packet(3, b"") + b"x", shell_packet(3, b"ab")])
def test_packets_that_make_no_sense_are_an_error(connect, junk):
    def script(pipe: Pipe, service: bytes) -> None:
        pipe.write(junk)
        pipe.hang()

    phone, _ = connect({b"shell,v2,raw:": script})
    with pytest.raises(PhoneProtocolError):
        phone.shell("id")


@pytest.mark.parametrize("command", ["", "a\0b", "x" * 40_000])
def test_a_command_that_cannot_be_sent_is_a_usage_error(connect, command):
    phone, _ = connect({b"shell,v2,raw:": shell_says()})
    with pytest.raises(UsageError):
        phone.shell(command)


# ---- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maxdata", [4096, 1 << 20])
@pytest.mark.parametrize("size", [0, 1, MAX_CHUNK - 1, MAX_CHUNK, MAX_CHUNK + 1, 3_000_000])
def test_files_go_there_and_come_back_unchanged(connect, tmp_path, size, maxdata):
    files = Files()
    phone, peer = connect({b"sync:": files})
    peer.maxdata = maxdata
    phone.reconnect()
    local = random_file(tmp_path, size)
    said: list[int] = []
    remote = "/data/local/tmp/a,b 'ü\udcff"
    phone.push(local, remote, mode=0o755, progress=said.append)
    path = remote.encode("utf-8", "surrogateescape")
    assert files.files == {path: local.read_bytes()}
    assert files.modes[path] == stat.S_IFREG | 0o755
    assert max(files.chunks, default=0) <= MAX_CHUNK
    assert said == sorted(said) and (said[-1] if said else 0) == size

    back = tmp_path / "back"
    said.clear()
    phone.pull(remote, back, max_bytes=size, progress=said.append)
    assert back.read_bytes() == local.read_bytes()
    assert (said[-1] if said else 0) == size and not list(tmp_path.glob("*.part"))


def test_a_push_through_network_sized_segments_loses_nothing(connect, tmp_path):
    files = Files()
    phone, _ = connect({b"sync:": files}, mss=1448)
    local = random_file(tmp_path, 5_000_000)
    phone.push(local, "/x")
    assert files.files[b"/x"] == local.read_bytes()


@pytest.mark.parametrize("then", ["drain", "close", "hang"])
@pytest.mark.parametrize("after", [0, 1_000_000])
def test_a_push_that_the_phone_refuses_stops_early_with_its_reason(connect, tmp_path, after, then):
    files = Files(refuse_after=after, then=then)
    phone, _ = connect({b"sync:": files})
    with pytest.raises(PhoneNoSpace) as caught:
        phone.push(random_file(tmp_path, 20_000_000), "/data/local/tmp/x")
    assert caught.value.reason == "write failed: No space left on device"
    assert caught.value.phone == phone.name and "/data/local/tmp/x" in str(caught.value)
    assert files.received < 15_000_000, "it went on sending"
    files.refuse_after = None
    if then == "hang":
        phone.reconnect()  # this peer serves one stream at a time
    phone.push(random_file(tmp_path, 10), "/y")  # and the connection is good for more
    assert files.files[b"/y"] == (tmp_path / "file_10").read_bytes()


def test_a_refusal_of_another_kind_is_no_lack_of_space(connect, tmp_path):
    phone, _ = connect({b"sync:": Files(refuse_after=0, reason=b"couldn't create file: Permission denied")})
    with pytest.raises(PhoneRefused, match="Permission denied") as caught:
        phone.push(random_file(tmp_path, 5), "/system/x")
    assert not isinstance(caught.value, PhoneNoSpace)


@pytest.mark.parametrize("end", ["cut", "end", "hang"])
def test_a_push_whose_link_breaks_or_stalls_ends(connect, tmp_path, end):
    def script(pipe: Pipe, service: bytes) -> None:
        pipe.read(1_000_000)
        getattr(pipe, end)()

    phone, _ = connect({b"sync:": script}, idle=SHORT)
    with pytest.raises(PhoneTimeout if end == "hang" else PhoneGone, match="pushing file_20000000"):
        phone.push(random_file(tmp_path, 20_000_000), "/x")


@pytest.mark.parametrize("end", ["cut", "end", "hang"])
def test_a_pull_whose_link_breaks_or_stalls_ends_and_leaves_the_old_file(connect, tmp_path, end):
    def script(pipe: Pipe, service: bytes) -> None:
        pipe.read(8 + 2)
        pipe.write(b"DATA" + (65536).to_bytes(4, "little") + b"only a little")
        getattr(pipe, end)()

    phone, _ = connect({b"sync:": script}, idle=SHORT)
    target = tmp_path / "result"
    target.write_text("old")
    with pytest.raises(PhoneTimeout if end == "hang" else PhoneGone):
        phone.pull("/x", target, max_bytes=100_000)
    assert target.read_text() == "old" and os.listdir(tmp_path).count("result.part") == 0


def test_a_pull_of_what_is_not_there_is_refused_and_leaves_nothing(connect, tmp_path):
    phone, _ = connect({b"sync:": Files()})
    with pytest.raises(PhoneRefused, match="No such file"):
        phone.pull("/missing", tmp_path / "result", max_bytes=10)
    assert not list(tmp_path.glob("result*"))


def test_a_pull_takes_no_more_than_was_allowed(connect, tmp_path):
    phone, _ = connect({b"sync:": Files({b"/x": bytes(1000)})})
    with pytest.raises(PhoneProtocolError, match="larger than the 999 bytes"):
        phone.pull("/x", tmp_path / "result", max_bytes=999)
    assert not list(tmp_path.glob("result*"))


@pytest.mark.parametrize(
    "junk", [b"DATA\xff\xff\xff\xff", b"WHAT\0\0\0\0", b"FAIL\xff\xff\xff\x7f", b"OKAY\0\0\0\0"]
)
def test_junk_instead_of_a_file_is_an_error(connect, tmp_path, junk):
    def script(pipe: Pipe, service: bytes) -> None:
        pipe.write(junk)
        pipe.hang()

    phone, _ = connect({b"sync:": script})
    with pytest.raises(PhoneProtocolError):
        phone.pull("/x", tmp_path / "result", max_bytes=1 << 40)


def test_an_okay_before_the_whole_file_is_an_error(connect, tmp_path):
    def script(pipe: Pipe, service: bytes) -> None:
        pipe.read(300_000)
        pipe.write(b"OKAY\0\0\0\0")
        pipe.hang()

    phone, _ = connect({b"sync:": script})
    with pytest.raises(PhoneProtocolError, match="before it had the whole file"):
        phone.push(random_file(tmp_path, 20_000_000), "/x")


@pytest.mark.parametrize("features", ["shell_v2", "shell_v2,stat_v2,ls_v2"])
def test_stat_and_list_by_both_generations_of_requests(connect, features):
    files = Files({b"/d/a": b"123", b"/d/\xff\n": b""})
    phone, _ = connect({b"sync:": files}, features=features)
    assert phone.stat("/d/a") == RemoteStat(0o100644, 3, 7)
    assert phone.stat("/missing") is None
    assert phone.list("/d") == {"a": RemoteStat(0o100644, 3, 7), "\udcff\n": RemoteStat(0o100644, 0, 7)}
    assert phone.list("/missing") == {}
    assert (b"STA2" in files.requests) == (b"LIS2" in files.requests) == ("stat_v2" in features)


@pytest.mark.parametrize("name", [b"../../etc/passwd", b"a/b", b"a\0b", b""])
def test_a_listed_name_that_leaves_its_folder_is_an_error(connect, name):
    def script(pipe: Pipe, service: bytes) -> None:
        pipe.write(b"DNT2" + bytes(68) + len(name).to_bytes(4, "little") + name + b"DONE" + bytes(72))

    phone, _ = connect({b"sync:": script})
    with pytest.raises(PhoneProtocolError):
        phone.list("/d")


def test_a_stat_that_the_phone_denies_is_refused(connect):
    def script(pipe: Pipe, service: bytes) -> None:
        pipe.write(b"STA2" + (13).to_bytes(4, "little") + bytes(64))

    phone, _ = connect({b"sync:": script})
    with pytest.raises(PhoneRefused, match="Permission denied"):
        phone.stat("/root/x")


def test_a_reason_with_escape_sequences_is_printed_harmlessly(connect, tmp_path):
    phone, _ = connect({b"sync:": Files(refuse_after=0, reason=b"\x1b[2J\xff" + b"x" * 5000)})
    with pytest.raises(PhoneRefused) as caught:
        phone.push(random_file(tmp_path, 5), "/x")
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 2000


def test_a_reason_that_breaks_off_is_still_a_refusal(connect, tmp_path):
    def script(pipe: Pipe, service: bytes) -> None:
        pipe.write(fail(b"a long reason")[:10])
        pipe.cut()

    phone, _ = connect({b"sync:": script})
    with pytest.raises((PhoneRefused, PhoneGone)):  # a reset may overtake the bytes before it
        phone.push(random_file(tmp_path, 5_000_000), "/x")


@pytest.mark.parametrize("what", ["missing", "folder"])
def test_a_local_file_that_cannot_be_read_is_a_readable_error(connect, tmp_path, what):
    phone, _ = connect({b"sync:": Files()})
    path = tmp_path if what == "folder" else tmp_path / "missing"
    with pytest.raises(FinetDeployError, match="cannot read"):
        phone.push(path, "/x")


def test_a_local_folder_that_is_not_there_is_a_readable_error(connect, tmp_path):
    phone, _ = connect({b"sync:": Files({b"/x": b""})})
    with pytest.raises(FinetDeployError, match="cannot write"):
        phone.pull("/x", tmp_path / "no" / "result", max_bytes=10)


def test_an_interrupt_in_the_middle_of_a_push_leaves_a_usable_connection(connect, tmp_path):
    files = Files()
    phone, _ = connect({b"sync:": files})

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        phone.push(random_file(tmp_path, 5_000_000), "/x", progress=interrupt)
    assert b"/x" not in files.files
    phone.push(random_file(tmp_path, 10), "/y")
    assert b"/y" in files.files


def test_a_connection_made_anew_works_after_a_cut(connect):
    phone, peer = connect({b"shell,v2,raw:": shell_says(b"fine")})
    assert phone.shell("id").stdout == b"fine"
    peer.drop()
    phone.reconnect()
    assert phone.shell("id").stdout == b"fine"
    phone.close()
    phone.close()
