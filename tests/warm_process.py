"""Processes of their own that need not import torch, or the exporters: forks of one that has done nothing else.

For tests of what signals and ends of processes do. The imports of training and of an export take five seconds of a
processor and more, and what is tested comes after them. The fork leads a session of its own, and ends as an
interpreter does.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

__all__ = ["COMMAND", "WarmProcess", "run_warm"]

COMMAND = "from finet_deploy.__main__ import main\nmain()"
TRAINING = (
    "torch",
    "torch._dynamo",
    "torchvision.datasets",
    "finet_deploy.commands.train",
    "finet_deploy.train",
)
EXPORTING = (
    *("torch", "torch._dynamo", "torchvision.transforms.v2.functional", "sklearn.datasets", "onnxscript"),
    *(
        "finet_deploy.commands.export",
        "finet_deploy.export.exporter",
        "torch.onnx._internal.exporter._compat",
    ),
    *("executorch.exir", "executorch.backends.xnnpack.partition.xnnpack_partitioner"),
)
MODULES = {"training": TRAINING, "exporting": EXPORTING}
TIMEOUT_SECONDS = 600.0
MAX_BYTES = 1 << 16


@functools.cache
def _server(purpose: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """One for each process that runs tests. It ends when its end of the channel is alone."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.warm_process", str(theirs.fileno()), purpose]
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
    theirs.close()
    return ours, process


class WarmProcess:
    """`python -c CODE ARGUMENTS...` in `cwd`, for one at a time. Has to be waited for. purpose: of MODULES."""

    def __init__(
        self,
        code: str,
        arguments: Sequence[object],
        cwd: Path,
        *,
        stderr: IO[str] | int,
        purpose: str = "exporting",
    ) -> None:
        self._channel, _ = _server(purpose)
        number = stderr if isinstance(stderr, int) else stderr.fileno()
        request = {"code": code, "arguments": [str(item) for item in arguments], "cwd": str(cwd)}
        socket.send_fds(self._channel, [json.dumps(request).encode()], [number])
        self.pid = self._answer(TIMEOUT_SECONDS)
        self.returncode: int | None = None

    def _answer(self, seconds: float) -> int:
        if not select.select([self._channel], [], [], seconds)[0]:
            raise subprocess.TimeoutExpired("warm process", seconds)
        return int(self._channel.recv(MAX_BYTES))

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        if self.returncode is None and select.select([self._channel], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float = TIMEOUT_SECONDS) -> int:
        """The exit status, negative for a signal."""
        if self.returncode is None:
            self.returncode = self._answer(timeout)
        return self.returncode


def run_warm(code: str, arguments: Sequence[object], cwd: Path, *, purpose: str) -> tuple[int, str]:
    """Exit status and stderr of such a process."""
    with tempfile.TemporaryFile("w+") as stderr:
        status = WarmProcess(code, arguments, cwd, stderr=stderr, purpose=purpose).wait()
        stderr.seek(0)
        return status, stderr.read()


def _serve(channel: socket.socket) -> str | None:
    """In each fork, the code that it has to run; None when nobody asks any more."""
    while True:
        message, numbers, _, _ = socket.recv_fds(channel, MAX_BYTES, 1)
        if not message:
            return None
        child = os.fork()
        if child == 0:
            channel.close()
            return _become(json.loads(message), numbers[0])
        os.close(numbers[0])
        channel.send(str(child).encode())
        channel.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def _become(request: dict[str, object], stderr: int) -> str:
    os.setsid()
    os.chdir(str(request["cwd"]))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number, source in ((0, nowhere), (1, nowhere), (2, stderr)):
        os.dup2(source, number)
    os.close(nowhere)
    os.close(stderr)
    arguments = request["arguments"]
    assert isinstance(arguments, list)
    sys.argv[:] = ["-c", *arguments]
    return str(request["code"])


if __name__ == "__main__":
    for name in MODULES[sys.argv[2]]:
        with contextlib.suppress(ImportError):  # of an extra that is not installed
            __import__(name)
    code = _serve(socket.socket(fileno=int(sys.argv[1])))
    if code is not None:
        exec(code, {"__name__": "__main__"})  # noqa: S102 (as `python -c` does)
