"""The process behind `run_isolated`: `python -m finet_deploy.runtimes.child FILE FORMAT THREADS`.

Reads the inputs from the working directory and writes the outputs there. An error of ours goes to stdout as JSON.
With `--serve` it makes such processes instead, for `warm.py`.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback

import msgspec
from safetensors.numpy import load_file, save_file

from finet_deploy.errors import FinetDeployError
from finet_deploy.runtimes import open_session
from finet_deploy.runtimes.isolated import INPUTS_FILE, OUTPUTS_FILE, Failure
from finet_deploy.runtimes.warm import STDERR_FILE, STDOUT_FILE, Request

CRASHED = 70  # sysexits.h: EX_SOFTWARE


def main(path: str, fmt: str, threads: str) -> int:
    """Run one file on all inputs. The exit status."""
    try:
        session = open_session(path, fmt, threads=int(threads))
        outputs = {name: session.run(x) for name, x in load_file(INPUTS_FILE).items()}
    except FinetDeployError as error:
        sys.stdout.buffer.write(msgspec.json.encode(Failure(error.message, error.where, error.do)))
        sys.stdout.flush()
        return FinetDeployError.exit_code
    save_file(outputs, OUTPUTS_FILE)
    return 0


def serve() -> None:
    """Import torch, then make one fresh process a line of stdin, each from the same, otherwise untouched state.

    Nothing else is imported before the fork: libraries that start threads, as XNNPACK's pool, do not survive one.
    """
    import torch  # noqa: F401

    for line in sys.stdin.buffer:
        request = msgspec.json.decode(line, type=Request)
        child = os.fork()
        if child == 0:
            _become(request)
        # Whoever ends the server ends the process that it waits for.
        signal.signal(signal.SIGTERM, lambda *_, child=child: os.kill(child, signal.SIGKILL))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


def _become(request: Request) -> None:
    """What a process of its own would be: other standard streams, another folder; never returns."""
    status = CRASHED
    try:
        os.chdir(request.scratch)
        for number, name in ((1, STDOUT_FILE), (2, STDERR_FILE)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        status = main(request.path, request.fmt, str(request.threads))
    except BaseException:  # noqa: BLE001 (what an interpreter does at its end)
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        sys.exit(main(*sys.argv[1:]))
