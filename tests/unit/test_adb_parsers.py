"""Whatever bytes a phone sends, in whatever pieces: the right result or a `PhoneError`, never anything else."""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.devices.adb import PhoneError, PhoneGone, PhoneRefused
from finet_deploy.devices.adb.direct import parse_banner, parse_direct
from finet_deploy.devices.adb.errors import refusal, visible
from finet_deploy.devices.adb.shell import plain_service, read_plain, run_v2
from finet_deploy.devices.adb.stream import Clocks
from finet_deploy.devices.adb.sync import SyncSession
from finet_deploy.errors import FinetDeployError, UsageError
from tests.unit.adb_peer import MemoryStream
from tests.unit.adb_scripts import shell_packet

NEW = frozenset({"shell_v2", "stat_v2", "ls_v2"})


def clocks() -> Clocks:
    return Clocks("PHONE", "testing", 60)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 10_000), max_size=20)


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=300))), st.integers(0, 255), CUTS)
def test_a_commands_packets_are_read_however_they_are_cut(packets, status, cuts):
    data = b"".join(shell_packet(kind, text) for kind, text in packets) + shell_packet(3, bytes([status]))
    result = run_v2(MemoryStream(pieces(data, cuts)), clocks(), 1 << 20)
    assert result.stdout == b"".join(text for kind, text in packets if kind == 1)
    assert result.stderr == b"".join(text for kind, text in packets if kind == 2)
    assert result.status == status


@given(st.lists(st.binary(max_size=50), min_size=1), st.integers(0, 10_000))
def test_a_commands_packets_that_break_off_are_gone(texts, cut):
    data = b"".join(shell_packet(1, text) for text in texts) + shell_packet(3, b"\0")
    with pytest.raises(PhoneGone):
        run_v2(MemoryStream([data[: cut % len(data)]]), clocks(), 1 << 20)


@given(st.binary(), st.integers(0, 255), CUTS)
def test_a_plain_commands_output_is_kept_and_its_status_read(output, status, cuts):
    _, mark = plain_service(b"x")
    data = output + mark + b"%d\n" % status
    result = read_plain(MemoryStream(pieces(data, cuts)), clocks(), mark, 1 << 20)
    assert (result.stdout, result.status) == (output, status)


@given(st.binary(max_size=400), CUTS)
def test_junk_is_never_more_than_a_phone_error(junk, cuts):
    for session in (frozenset[str](), NEW):
        for call in (
            lambda s: s.stat(b"/x"),
            lambda s: s.list(b"/x"),
            lambda s: s.receive(b"/x", io.BytesIO(), Path("x"), 1000, None),
        ):
            with contextlib.suppress(PhoneError):
                call(SyncSession(MemoryStream(pieces(junk, cuts)), clocks(), session))
    with contextlib.suppress(PhoneError):
        run_v2(MemoryStream(pieces(junk, cuts)), clocks(), 1000)


@given(st.lists(st.binary(max_size=65536), max_size=5), CUTS)
def test_a_file_arrives_however_it_is_cut(chunks, cuts):
    data = b"".join(struct.pack("<4sI", b"DATA", len(chunk)) + chunk for chunk in chunks) + b"DONE\0\0\0\0"
    target = io.BytesIO()
    SyncSession(MemoryStream(pieces(data, cuts)), clocks(), NEW).receive(
        b"/x", target, Path("x"), 1 << 20, None
    )
    assert target.getvalue() == b"".join(chunks)


def test_sizes_above_4_gib_are_whole_with_stat_v2():
    data = b"STA2" + struct.pack("<IQQIIIIQqqq", 0, 1, 1, 0o100600, 1, 0, 0, 5 << 32, 1, -2, 3)
    found = SyncSession(MemoryStream([data]), clocks(), NEW).stat(b"/x")
    assert found is not None and (found.size, found.mtime, found.mode) == (5 << 32, -2, 0o100600)


def test_a_list_without_end_is_cut_off():
    entry = struct.pack("<4sIII", b"DENT", 1, 1, 1)
    data = b"".join(entry + struct.pack("<I", 7) + b"%07d" % number for number in range(100_002))
    with pytest.raises(PhoneError, match="more than 100000 entries"):
        SyncSession(MemoryStream([data]), clocks(), frozenset()).list(b"/x")


@given(st.binary())
def test_any_banner_is_read(banner):
    state, properties, features = parse_banner(banner)
    assert state.isprintable() and "features" not in properties and "" not in features


def test_a_phones_banner():
    text = b"device::ro.product.name=x;ro.product.model=Pixel 8;features=shell_v2,cmd\0"
    assert parse_banner(text) == (
        "device",
        {"ro.product.name": "x", "ro.product.model": "Pixel 8"},
        frozenset({"shell_v2", "cmd"}),
    )


@pytest.mark.parametrize(
    ("spec", "address"),
    [
        ("tcp:phone", ("tcp", "phone", 5555)),
        ("tcp:10.0.0.1:7", ("tcp", "10.0.0.1", 7)),
        ("tcp:[fe80::1%eth0]:7", ("tcp", "fe80::1%eth0", 7)),
        ("usb:0A1B", ("usb", "0A1B", 0)),
        ("usb:", ("usb", "", 0)),
        ("0A1B", None),
        ("10.0.0.1:5555", None),
        ("adb-0A1B-x._adb-tls-connect._tcp", None),
    ],
)
def test_names_of_phones_say_which_way_to_go(spec, address):
    assert parse_direct(spec) == address


@given(st.text(max_size=300))
def test_any_name_is_an_address_a_serial_or_a_usage_error(spec):
    try:
        address = parse_direct(spec)
    except UsageError:
        return
    assert address is None or address[0] == "usb" or (address[1] and 0 < address[2] < 65536)


@given(st.one_of(st.text(), st.binary()), st.integers(2, 50))
def test_a_phones_text_becomes_one_bounded_printable_line(text, limit):
    line = visible(text, limit)
    assert len(line) <= limit and (line == "" or line.isprintable())


@given(st.binary())
def test_any_reason_makes_a_printable_error(reason):
    error = refusal("PHONE", "cannot write /x", reason)
    assert isinstance(error, PhoneRefused) and isinstance(error, FinetDeployError)
    assert str(error).isprintable() and "PHONE" in str(error) and error.reason in str(error)
