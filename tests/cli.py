"""The command line as a person meets it: in this process where that shows the same, in another one elsewhere."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finet_deploy.__main__ import main
from finet_deploy.cli import run
from tests.warm_process import COMMAND, WarmProcess

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one command line."""
    capsys.readouterr()
    status = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def error_line(capsys: pytest.CaptureFixture[str], status: int, *arguments: object) -> str:
    """The one error line of a command that must fail with `status`, and print no traceback and no result."""
    found, out, err = run_cli(capsys, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("finet-deploy: error: ")]
    assert "Traceback" not in err
    assert len(lines) == 1, err
    assert found == status, err
    assert out == ""
    return lines[0]


def interrupt_when(
    arguments: list[object], marker: str, cwd: Path, *, sign: int = signal.SIGINT, warm: str | None = None
) -> tuple[int, str]:
    """Start a command, send `sign` to its whole process group (as a terminal does) once stderr shows `marker`.

    warm: in a fork of a process that has loaded what that purpose needs.
    """
    reading, writing = os.pipe()
    process: WarmProcess | subprocess.Popen[bytes]
    if warm:
        process = WarmProcess(COMMAND, arguments, cwd, stderr=writing, purpose=warm)
    else:
        command = [sys.executable, "-m", "finet_deploy", *map(str, arguments)]
        process = subprocess.Popen(
            command, cwd=cwd, stderr=writing, stdout=subprocess.DEVNULL, start_new_session=True
        )
    os.close(writing)
    seen = []
    try:
        with os.fdopen(reading) as stderr:
            for line in stderr:
                seen.append(line)
                if marker in line:
                    os.killpg(process.pid, sign)
                    break
            else:
                pytest.fail(f"{marker!r} was never printed: {''.join(seen)}")
            rest = stderr.read()
        status = process.wait(timeout=120)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return status, "".join(seen) + rest


class _Interrupting(io.StringIO):
    """A stderr that sends this process SIGINT when it is told `marker`."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker, self.sent = marker, False

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.marker in text and not self.sent:
            self.sent = True
            signal.raise_signal(signal.SIGINT)
        return written


def interrupt_here_when(
    monkeypatch: pytest.MonkeyPatch, arguments: list[object], marker: str, cwd: Path
) -> tuple[int, str]:
    """As `interrupt_when`, in this process, which need not load the exporters again; its children get no signal."""
    err = _Interrupting(marker)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(sys, "argv", ["finet-deploy", *map(str, arguments)])
    monkeypatch.setattr(sys, "stderr", err)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert err.sent, f"{marker!r} was never printed: {err.getvalue()}"
    assert isinstance(ended.value.code, int)
    return ended.value.code, err.getvalue()
