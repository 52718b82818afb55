"""What a way to a phone can do, and nothing of how: the adb server and the direct path both are a `Connection`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Connection", "RemoteStat", "ShellResult", "quote"]


@dataclass(frozen=True)
class ShellResult:
    """What a command wrote (bytes: a phone promises no encoding) and its exit status; 137 = killed by signal 9."""

    stdout: bytes
    stderr: bytes
    status: int


@dataclass(frozen=True)
class RemoteStat:
    """mode: st_mode with the file type. size: bytes. mtime: seconds since 1970 by the phone's clock."""

    mode: int
    size: int
    mtime: int


class Connection(Protocol):
    """A phone that commands and files go to. One user at a time. Everything raises `PhoneError`s only, in bounded time.

    Paths and commands are text; bytes that are no UTF-8 travel as Python's `surrogateescape` characters.
    """

    name: str  # as the user gave it: SERIAL, tcp:HOST:PORT, usb:SERIAL

    def features(self) -> frozenset[str]:
        """What the phone's daemon can do: shell_v2, stat_v2, ls_v2, ..."""

    def shell(
        self, command: str, *, timeout: float = 30.0, idle: float | None = None, max_bytes: int = 16 << 20
    ) -> ShellResult:
        """Run `command` in the phone's shell, its standard input empty.

        timeout: seconds in all. idle: seconds without output. max_bytes: of both outputs together; more is an error.
        A status is only reported when the phone reported it: a link that ends before that is `PhoneGone`.
        Without the phone's `shell_v2`, stderr is merged into stdout.
        """

    def push(
        self,
        local: Path,
        remote: str,
        *,
        mode: int = 0o644,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Write the file `local` to `remote` (its folders are made). progress: bytes of this file so far."""

    def pull(
        self,
        remote: str,
        local: Path,
        *,
        max_bytes: int,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Read `remote` into `local`: into `local` + ".part", renamed when whole."""

    def stat(self, remote: str) -> RemoteStat | None:
        """None when nothing is there."""

    def list(self, remote: str) -> dict[str, RemoteStat]:
        """The folder's entries by name; empty for a folder that is missing or may not be read."""

    def reconnect(self) -> None:
        """Make the link anew, waiting a little for the phone to be back. Raises `PhoneGone` when it is not."""

    def close(self) -> None:
        """Let go of the phone. Never raises."""


def quote(*words: str) -> str:
    """One command line of these words for the phone's POSIX shell, whatever characters are in them."""
    return " ".join(shlex.quote(word) for word in words)
