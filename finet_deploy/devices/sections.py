"""Many questions in one shell round trip: commands with separators between, and the answers told apart again.

Each command's stdout, stderr and exit status stay its own: one "Permission denied" spoils nothing else. The
separator holds a fresh random word, so that nothing a phone prints can be taken for one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finet_deploy.devices.adb.errors import PhoneProtocolError

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["Section", "ask", "compose", "split"]

MAX_ANSWER_BYTES = 4 << 20
ASK_SECONDS = 30.0
REASON_LENGTH = 200


@dataclass(frozen=True)
class Section:
    """One command's answer. `status` is None where the shell ended before the command did."""

    stdout: bytes = b""
    stderr: bytes = b""
    status: int | None = None

    @property
    def text(self) -> str:
        """What it printed. ValueError with the phone's own words when it printed nothing."""
        text = self.stdout.decode("utf-8", "replace").replace("\r\n", "\n").strip("\n")
        if not text.strip():
            raise ValueError(self.reason)
        return text

    @property
    def reason(self) -> str:
        """Why there is nothing to read, in one line."""
        said = " ".join(self.stderr.decode("utf-8", "replace").split())
        if said:
            return said[:REASON_LENGTH]
        if self.status is None:
            return "the phone's shell ended before this was asked"
        return "no output" if self.status == 0 else f"no output, exit status {self.status}"


def ask(
    connection: Connection, commands: Mapping[str, str], *, timeout: float = ASK_SECONDS
) -> dict[str, Section]:
    """Run all `commands` (shell command lines by name) in one round trip; every name has a section in the answer.

    Raises what `Connection.shell` raises, and `PhoneProtocolError` for an answer that is not whole: taken for "nothing
    is there", it would let a running job look dead and a phone look like another one.
    """
    mark = secrets.token_hex(8)
    result = connection.shell(compose(commands, mark), timeout=timeout, max_bytes=MAX_ANSWER_BYTES)
    found = split(result.stdout, result.stderr, mark)
    whole = [name for name in commands if name in found and found[name].status is not None]
    if len(whole) < len(commands):
        told = f"{len(whole)} of {len(commands)} answers came back whole, exit status {result.status}"
        raise PhoneProtocolError(connection.name, told)
    return {name: found[name] for name in commands}


def compose(commands: Mapping[str, str], mark: str) -> str:
    """One command line for the phone's shell. The names are words of ours and must not need quoting."""
    parts = []
    for name, command in commands.items():
        begin = f"echo; echo {mark} begin {name}"
        parts.append(
            f"{begin}; {{ {begin}; }} >&2; ( {command}\n) </dev/null; r=$?; echo; echo {mark} end {name} $r"
        )
    return "; ".join(parts)


def split(stdout: bytes, stderr: bytes, mark: str) -> dict[str, Section]:
    """The sections of an answer. Both streams may be one (a shell without shell_v2): then stdout has both."""
    out, statuses = _pieces(stdout, mark)
    err, _ = _pieces(stderr, mark)
    return {name: Section(content, err.get(name, b""), statuses.get(name)) for name, content in out.items()}


def _pieces(stream: bytes, mark: str) -> tuple[dict[str, bytes], dict[str, int]]:
    separator = b"\n" + mark.encode() + b" "
    contents: dict[str, bytes] = {}
    statuses: dict[str, int] = {}
    if re.search(re.escape(separator) + rb"begin \S+\r\n", b"\n" + stream):
        stream = stream.replace(b"\r\n", b"\n")  # an old phone's terminal writes every line so
    for piece in (b"\n" + stream).split(separator)[1:]:
        header, _, content = piece.partition(b"\n")
        words = header.decode("ascii", "replace").split()
        if len(words) == 2 and words[0] == "begin":
            contents[words[1]] = contents.get(words[1], b"") + content
        elif len(words) == 3 and words[0] == "end" and words[2].isascii() and words[2].isdigit():
            statuses[words[1]] = int(words[2][:4])
    return contents, statuses
