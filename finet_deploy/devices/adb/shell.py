"""Commands on a phone: the `shell,v2` service with exit status and separate stderr, and what to do without it.

Packets of `shell,v2`: u8 id, u32 little-endian length, data; ids 1 stdout, 2 stderr, 3 exit status, 4 close stdin.
"""

from __future__ import annotations

import re
import secrets
import struct

from finet_deploy.devices.adb.connection import ShellResult
from finet_deploy.devices.adb.errors import PhoneProtocolError
from finet_deploy.devices.adb.stream import ByteStream, Clocks, Reader

__all__ = ["plain_service", "read_plain", "run_v2", "v2_service"]

_STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = 1, 2, 3, 4
_CLOSE = struct.pack("<BI", _CLOSE_STDIN, 0)


def v2_service(command: bytes) -> bytes:
    """The service's name for a command without a terminal."""
    return b"shell,v2,raw:" + command


def run_v2(stream: ByteStream, clocks: Clocks, max_bytes: int) -> ShellResult:
    """Read a command's packets up to its exit status.

    Raises `PhoneGone` when the stream ends without one: the command may still run, or may have been cut short.
    """
    # A command that reads its standard input must find its end. False only when the stream is over: read says so.
    stream.write(_CLOSE, clocks)
    reader = Reader(stream, clocks)
    outputs: dict[int, list[bytes]] = {_STDOUT: [], _STDERR: []}
    total = 0
    while True:
        kind, length = struct.unpack("<BI", reader.exactly(5))
        if kind == _EXIT:
            if length != 1:
                raise PhoneProtocolError(clocks.phone, f"an exit status of {length} bytes")
            status = reader.exactly(1)[0]
            return ShellResult(b"".join(outputs[_STDOUT]), b"".join(outputs[_STDERR]), status)
        if kind not in outputs:
            raise PhoneProtocolError(
                clocks.phone, f"shell packet of unknown kind {kind} while {clocks.doing}"
            )
        total += length
        if total > max_bytes:
            raise _endless(clocks, max_bytes)
        outputs[kind].append(reader.exactly(length))


def plain_service(command: bytes) -> tuple[bytes, bytes]:
    """For phones before Android 7: the service, and the mark that its last line will carry.

    The parentheses keep an `exit` of the command from skipping the mark, the newline a comment at its end; the mark
    is random so that no output can be mistaken for it.
    """
    mark = b"__rc_" + secrets.token_hex(8).encode() + b"="
    return b"shell:( " + command + b'\n) </dev/null; echo "' + mark + b'$?"', mark


def read_plain(stream: ByteStream, clocks: Clocks, mark: bytes, max_bytes: int) -> ShellResult:
    """Read up to the end; the last line carries the status. Raises `PhoneGone` when it does not."""
    output = Reader(stream, clocks).rest(max_bytes + 256)
    if len(output) > max_bytes + 256:
        raise _endless(clocks, max_bytes)
    found = re.search(re.escape(mark) + rb"(\d{1,3})\r?\n?\Z", output)
    if found is None:
        raise clocks.gone()
    if found.start() > max_bytes:
        raise _endless(clocks, max_bytes)
    return ShellResult(output[: found.start()], b"", int(found.group(1)) & 0xFF)


def _endless(clocks: Clocks, max_bytes: int) -> PhoneProtocolError:
    return PhoneProtocolError(clocks.phone, f"more than {max_bytes} bytes of output while {clocks.doing}")
