"""Fresh processes that need not import torch again: forks of one that has done nothing else.

Importing torch takes two seconds of processor time, and a network in three formats, or a suite of networks, needs it
for every file. Only on Linux: forking a process that has loaded large frameworks is not safe everywhere.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from finet_deploy.errors import FinetDeployError

__all__ = ["STDERR_FILE", "STDOUT_FILE", "Request", "can_fork", "last_words", "printed", "run_forked"]

STDOUT_FILE, STDERR_FILE = "stdout", "stderr"
CLOSING_SECONDS = 2.0
MAX_ANSWER_BYTES = 64
MAX_PRINTED_BYTES = 1 << 20


class Request(msgspec.Struct, frozen=True):
    """What a fork is to do: run `path` in the folder `scratch`, where its standard streams become files."""

    scratch: str
    path: str
    fmt: str
    threads: int


def can_fork() -> bool:
    """Whether this system is one on which the forks are made."""
    return sys.platform == "linux"


class _Server:
    """`python -m finet_deploy.runtimes.child --serve`. It ends with this process: its stdin does."""

    def __init__(self, environment: Mapping[str, str], stderr: Path) -> None:
        self.pid = os.getpid()
        command = [sys.executable, "-m", "finet_deploy.runtimes.child", "--serve"]
        with stderr.open("wb") as stream:
            self._process = subprocess.Popen(
                command,
                cwd="/",
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
            )

    def run(self, request: Request, timeout: float) -> int:
        """The exit status of a fork, negative for a signal. TimeoutExpired, or OSError when the server is gone."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(msgspec.json.encode(request) + b"\n")
        stdin.flush()
        deadline, answer = time.monotonic() + timeout, b""
        while not answer.endswith(b"\n"):
            if not select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise subprocess.TimeoutExpired(self._process.args, timeout)
            piece = os.read(stdout.fileno(), MAX_ANSWER_BYTES)
            if not piece or len(answer) > MAX_ANSWER_BYTES:
                raise BrokenPipeError("it ended")
            answer += piece
        return int(answer)

    def close(self) -> None:
        """End it, and the fork that it waits for."""
        with contextlib.suppress(OSError):
            self._process.send_signal(signal.SIGTERM)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_lock = threading.Lock()
_server: _Server | None = None


def run_forked(request: Request, environment: Mapping[str, str], timeout: float) -> int:
    """The exit status of a fresh process that does `request`; negative for a signal.

    Raises subprocess.TimeoutExpired after `timeout` seconds, and FinetDeployError when no process could be made.
    """
    with _lock:
        try:
            return _served(request, environment, timeout)
        except OSError:  # somebody ended the server since: no word about this file
            _close()
        try:
            return _served(request, environment, timeout)
        except OSError as error:
            _close()
            words = last_words(printed(Path(request.scratch, STDERR_FILE)))
            raise FinetDeployError(
                f"no process to run the file in: {words or error}",
                where=request.path,
                do="free some memory, or install the package again; then try again",
            ) from error


def _served(request: Request, environment: Mapping[str, str], timeout: float) -> int:
    global _server
    if _server is None or _server.pid != os.getpid():  # a fork of ours has its parent's server
        _server = _Server(environment, Path(request.scratch, STDERR_FILE))
    try:
        return _server.run(request, timeout)
    except (KeyboardInterrupt, SystemExit, subprocess.TimeoutExpired):  # what it is doing is not waited for
        _close()
        raise


def printed(path: Path) -> bytes:
    """The end of what a process printed into `path`; nothing where it did not come so far."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - MAX_PRINTED_BYTES))
            return stream.read(MAX_PRINTED_BYTES)
    except OSError:
        return b""


def last_words(data: bytes) -> str:
    """The last line of what was printed, for an error of one line."""
    return "".join(data.decode("utf-8", "replace").strip().splitlines()[-1:])[:200]


def _close() -> None:
    global _server
    if _server is not None and _server.pid == os.getpid():
        _server.close()
    _server = None


atexit.register(_close)
