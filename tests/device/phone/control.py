"""Orders of the test to the emulated phone, over a socket pair: a JSON line each way."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Control", "kill_matching", "processes", "serve_control"]


MAX_ANSWER = 64 << 20  # the log of a long test


class Control:
    """The test's end. Every call has `timeout` seconds."""

    def __init__(self, end: socket.socket, *, timeout: float = 30.0) -> None:
        end.settimeout(timeout)
        self.end, self.file = end, end.makefile("rwb")

    def receive(self) -> Any:
        line = self.file.readline(MAX_ANSWER)
        if not line:
            raise EOFError
        return json.loads(line)

    def ask(self, order: str, **values: Any) -> Any:
        """The phone's answer to one order. Raises RuntimeError with its reason."""
        self.file.write(json.dumps({"order": order, **values}).encode() + b"\n")
        self.file.flush()
        answer = self.receive()
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer.get("value")

    def close(self) -> None:
        self.file.close()
        self.end.close()


async def serve_control(fd: int, port: int, obey: Callable[[str, dict[str, Any]], Awaitable[Any]]) -> None:
    """The phone's end: says that it is ready, obeys orders, returns when the test is gone."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd))
    writer.write(json.dumps({"ready": port}).encode() + b"\n")
    while line := await reader.readline():
        values = json.loads(line)
        try:
            answer = {"value": await obey(values.pop("order"), values)}
        except Exception as error:  # noqa: BLE001 - told to the test, which raises it
            answer = {"failed": repr(error)}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()


def processes() -> dict[int, str]:
    """The phone's processes but 1 and this one: command lines, spaces between the words."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, os.getpid()):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().replace(b"\0", b" ").strip()
            except OSError:
                continue
            if words:
                found[int(name)] = words.decode("utf-8", "replace")
    return found


def kill_matching(pattern: str) -> int:
    """SIGKILL for the phone's processes whose command line matches; how many."""
    count = 0
    for pid, words in processes().items():
        if re.search(pattern, words):
            try:
                os.kill(pid, signal.SIGKILL)
                count += 1
            except ProcessLookupError:
                continue
    return count
