"""Raw packets whose answers are compared between the simulated phone and AOSP's adbd: one service, one answer."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from tests.device.phone.wire import Wire, shell_packets, sync

__all__ = ["DONE", "SCENARIOS", "TMP", "Scenario", "data", "scenario"]

TMP = b"/data/local/tmp/"
Scenario = Callable[[int], Any]  # from a port to what came back, without what may differ
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


def simple(name: str, service: bytes, *writes: bytes, v2: bool = False, ends_early: bool = False) -> None:
    """A scenario that opens one service and compares everything that comes back.

    ends_early: the phone closes the stream for something that stands before the last write. That one may then arrive
    before or after the end, so its OKAY may come or not, from adbd too: the OKAYs are not counted.
    """

    def play(port: int) -> Any:
        with Wire(port) as wire:
            reply = wire.run(service, *writes)
            data = shell_packets(reply.data) if v2 else reply.data
            return reply.opened, data, None if ends_early else reply.okays, reply.closed

    SCENARIOS[name] = play


def syncing(name: str, *requests: bytes, ends_early: bool = False) -> None:
    simple(name, b"sync:", *requests, ends_early=ends_early)


TTY = b"for i in 0 1 2; do [ -t $i ] && echo tty$i; done; printf 'a\\nb\\n'; echo e >&2"
DONE = b"DONE" + struct.pack("<I", 1_600_000_000)


def data(payload: bytes) -> bytes:
    return sync(b"DATA", payload)


simple("shell", b"shell:echo hello")
simple("shell_loses_the_exit_code", b"shell:echo hello; exit 3")
simple("shell_output_and_errors_together", b"shell:echo out; echo err >&2")
simple("v2_exit_code_and_stderr", b"shell,v2,raw:echo out; echo err >&2; exit 3", v2=True)
simple("v2_killed_by_a_signal", b"shell,v2,raw:kill -9 $$", v2=True)
simple("v2_command_not_found", b"shell,v2,raw:nosuchcommand", v2=True)
simple("v2_syntax_error", b"shell,v2,raw:if", v2=True)
simple("v2_unknown_argument", b"shell,v2,raw,fancy:echo hello", v2=True)
simple("v2_not_utf8", b"shell,v2,raw:printf '\\377\\376'; printf '\xff\n'", v2=True)
simple("tty_of_exec", b"exec:" + TTY)
simple("tty_of_shell", b"shell:" + TTY)
simple("tty_of_v2", b"shell,v2,raw:" + TTY, v2=True)
simple("tty_of_v2_pty", b"shell,v2,pty:" + TTY, v2=True)
simple("umask_and_folder", b"exec:umask; pwd; id -u; id -g")
simple("input_of_v2", b"shell,v2,raw:cat", b"\0\3\0\0\0one", b"\0\3\0\0\0two\4\0\0\0\0", v2=True)
simple("input_split_anywhere", b"shell,v2,raw:cat", b"\0\6\0\0\0on", b"etwo\4\0", b"\0\0\0", v2=True)
simple("input_of_exec", b"exec:read a; read b; echo $b$a", b"one\n", b"two\n")
simple("no_such_service", b"nosuchservice:")
simple("service_without_colon", b"shell")
simple("empty_service", b"")
syncing("sync_quit", sync(b"QUIT", b""))
syncing("stat_of_a_missing_path", sync(b"STAT", b"/data/nothing"), sync(b"QUIT", b""))
syncing("sta2_of_a_missing_path", sync(b"STA2", b"/data/nothing"), sync(b"QUIT", b""))
syncing("lst2_of_a_missing_path", sync(b"LST2", b"/data/nothing"), sync(b"QUIT", b""))
syncing("sta2_of_a_denied_path", sync(b"STA2", b"/sys/class/thermal/thermal_zone0/temp"), sync(b"QUIT", b""))
syncing("sta2_through_a_file", sync(b"STA2", b"/etc/passwd/x"), sync(b"QUIT", b""))
syncing("list_of_a_missing_path", sync(b"LIST", b"/data/nothing"), sync(b"QUIT", b""))
syncing("lis2_of_a_missing_path", sync(b"LIS2", b"/data/nothing"), sync(b"QUIT", b""))
syncing("recv_of_a_missing_path", sync(b"RECV", b"/data/nothing"))
syncing("recv_of_a_folder", sync(b"RECV", b"/data/local/tmp"))
syncing("recv_of_a_denied_path", sync(b"RECV", b"/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_cur_freq"))
syncing("recv_of_a_file", sync(b"RECV", b"/etc/passwd"), sync(b"QUIT", b""))
syncing(
    "send_denied",
    sync(b"SEND", b"/data/denied,33188") + data(b"x" * 1000) + DONE,
    sync(b"STAT", b"/data/denied"),
    ends_early=True,
)
syncing("send_denied_parent", sync(b"SEND", b"/data/new/denied,33188") + data(b"x") + DONE)
syncing("send_to_a_read_only_place", sync(b"SEND", b"/system/denied,33188") + data(b"x") + DONE)
syncing("send_onto_a_folder", sync(b"SEND", b"/data/local/tmp,33188") + data(b"x") + DONE)
syncing("send_without_a_mode", sync(b"SEND", TMP + b"nomode") + data(b"x") + DONE)
syncing("send_with_wrong_data", sync(b"SEND", TMP + b"wrong,33188") + sync(b"STAT", b"") + DONE)
syncing(
    "send_with_too_much_data",
    sync(b"SEND", TMP + b"big,33188") + data(bytes(70_000)) + DONE,
    sync(b"QUIT", b""),
)
syncing("unknown_sync_id", sync(b"WHAT", b"/data"))
syncing("path_too_long", sync(b"STAT", b"/" * 2000))
