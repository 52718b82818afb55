"""Running an exported file in a process of its own, so that a damaged one cannot take ours with it.

ExecuTorch's loader verifies the outer format of a `.pte` only: a flipped byte further in ends the process by
SIGSEGV or SIGABRT. A fresh process also proves that the file runs without anything that the exporter left in memory.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from finet_deploy.errors import FinetDeployError
from finet_deploy.runtimes.warm import (
    STDERR_FILE,
    STDOUT_FILE,
    Request,
    can_fork,
    last_words,
    printed,
    run_forked,
)

__all__ = ["INPUTS_FILE", "OUTPUTS_FILE", "Failure", "run_isolated"]

TIMEOUT_SECONDS = 600.0
NEED_TORCH = ("pte", "ptl")  # formats whose runtimes load torch first
INPUTS_FILE, OUTPUTS_FILE = "inputs.safetensors", "outputs.safetensors"


class Failure(msgspec.Struct, frozen=True):
    """An error of the child, on its way to the parent."""

    message: str
    where: str | None
    do: str | None


def run_isolated(
    path: Path | str, fmt: str, inputs: Mapping[str, NDArray[np.float32]], *, threads: int = 1
) -> dict[str, NDArray[np.float32]]:
    """Run the file on each named input in a fresh process; outputs by the same names, in the same order.

    Raises FinetDeployError when the runtime is missing, refuses the file, crashes or hangs on it.
    """
    path = Path(path).absolute()
    with tempfile.TemporaryDirectory(prefix="finet-deploy-") as scratch:
        save_file(dict(inputs), Path(scratch, INPUTS_FILE))
        try:
            done = _run(Request(scratch, str(path), fmt, threads))
        except subprocess.TimeoutExpired as error:
            raise FinetDeployError(
                f"the runtime of {fmt} did not finish in {TIMEOUT_SECONDS:.0f} s",
                where=str(path),
                do="export the bundle again",
            ) from error
        if done.returncode != 0:
            raise _failure(done, path, fmt)
        outputs = load_file(Path(scratch, OUTPUTS_FILE))
    return {name: outputs[name] for name in inputs}


def _run(request: Request) -> subprocess.CompletedProcess[bytes]:
    """The fresh process, with what it printed."""
    if request.fmt in NEED_TORCH and can_fork():
        status = run_forked(request, _environment(), TIMEOUT_SECONDS)
        told = [printed(Path(request.scratch, name)) for name in (STDOUT_FILE, STDERR_FILE)]
        return subprocess.CompletedProcess((), status, *told)
    # The scratch folder is the working directory: nothing there can shadow a module of ours.
    command = [sys.executable, "-m", "finet_deploy.runtimes.child"]
    command += [request.path, request.fmt, str(request.threads)]
    return subprocess.run(
        command, cwd=request.scratch, env=_environment(), capture_output=True, timeout=TIMEOUT_SECONDS
    )


def _environment() -> dict[str, str]:
    """Ours, with this package importable where it is not installed."""
    package_parent = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([package_parent, *([inherited] if inherited else [])]),
    }


def _failure(done: subprocess.CompletedProcess[bytes], path: Path, fmt: str) -> FinetDeployError:
    if done.returncode == FinetDeployError.exit_code:
        try:
            told = msgspec.json.decode(done.stdout, type=Failure)
        except msgspec.DecodeError:
            pass
        else:
            return FinetDeployError(told.message, where=told.where, do=told.do)
    if done.returncode < 0:
        found = f"the runtime of {fmt} crashed ({signal.Signals(-done.returncode).name})"
    else:
        found = f"the runtime of {fmt} failed: {last_words(done.stderr) or f'exit status {done.returncode}'}"
    return FinetDeployError(found, where=str(path), do="the file is damaged: export the bundle again")
