"""Which service the host opened (as AOSP's `daemon/services.cpp` finds it)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tests.device.phone.faults import Fault
from tests.device.phone.shell import ShellKind, run_shell
from tests.device.phone.streams import Stream
from tests.device.phone.sync import serve_sync

if TYPE_CHECKING:
    from tests.device.phone.daemon import Daemon

__all__ = ["Refused", "find_service"]

Run = Callable[["Daemon", Stream, list[Fault]], Awaitable[None]]


class Refused(Exception):
    """There is no such service, or a fault refuses it."""


def find_service(service: str) -> Run:
    """The coroutine function that serves `service`. Raises `Refused`."""
    name, colon, rest = service.partition(":")
    if not colon:
        raise Refused
    if name == "shell" or name.startswith("shell,"):
        return shell_service(name.split(",")[1:], rest)
    if name == "exec":
        return shell_service([], rest, terminal=None)
    if name == "sync" and not rest:
        return serve_sync
    if name == "reboot":
        return reboot
    if name in ("root", "unroot", "tcpip"):
        return answer(
            {
                "root": "adbd cannot run as root in production builds\n",
                "unroot": "adbd not running as root\n",
            }.get(name, f"restarting in TCP mode port: {rest}\n")
        )
    raise Refused


def shell_service(arguments: list[str], command: str, *, terminal: str | None = "dumb") -> Run:
    """A PTY for an interactive shell, none for a command; `v2` speaks the shell protocol."""
    tty, protocol = command == "", False
    for argument in arguments:
        if argument in ("raw", "pty"):
            tty = argument == "pty"
        elif argument == "v2":
            protocol = True
        elif argument.startswith("TERM="):
            terminal = argument[len("TERM=") :]
    kind = ShellKind(tty, protocol, terminal)

    async def run(phone: Daemon, stream: Stream, faults: list[Fault]) -> None:
        await run_shell(phone, stream, faults, kind, command)

    return run


async def reboot(phone: Daemon, stream: Stream, faults: list[Fault]) -> None:
    phone.do(Fault("reboot", value=phone.options.reboot_s))
    await stream.closed.wait()


def answer(text: str) -> Run:
    async def run(phone: Daemon, stream: Stream, faults: list[Fault]) -> None:
        await stream.write(text.encode())

    return run
