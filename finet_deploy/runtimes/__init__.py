"""The runtimes that exported files are for, behind one interface: open, check, run, count threads.

Nothing here imports a runtime before a file is opened, so that a process holds only the runtime it measures
(ONNX Runtime without torch among them).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import NamedTuple

from finet_deploy.errors import FinetDeployError, UsageError, suggest
from finet_deploy.runtimes.isolated import run_isolated
from finet_deploy.runtimes.session import Session

__all__ = [
    "FORMATS",
    "Session",
    "available_runtimes",
    "import_runtime",
    "open_session",
    "parse_formats",
    "require_runtime",
    "run_isolated",
    "runtime_of",
]

# Format (the file's suffix) -> runtime.
FORMATS = {"pte": "executorch", "onnx": "onnxruntime", "ptl": "torch_mobile"}


class _Runtime(NamedTuple):
    distribution: str
    extra: str | None  # of ours, that installs it
    session: str  # module:class that drives it
    libraries: tuple[str, ...]  # what a session imports before it opens a file


_RUNTIMES = {
    "executorch": _Runtime(
        "executorch",
        "executorch",
        "finet_deploy.runtimes.executorch:ExecutorchSession",
        ("torch", "executorch.extension.pybindings._C"),
    ),
    "onnxruntime": _Runtime(
        "onnxruntime", "onnx", "finet_deploy.runtimes.onnxruntime:OnnxruntimeSession", ("onnxruntime",)
    ),
    "torch_mobile": _Runtime(
        "torch", None, "finet_deploy.runtimes.torch_mobile:TorchMobileSession", ("torch", "torch.jit.mobile")
    ),
}


def runtime_of(fmt: str) -> str:
    """The runtime that runs files of format `fmt`; UsageError for an unknown format."""
    if fmt not in FORMATS:
        advice = suggest(fmt, FORMATS) or f"use {', '.join(FORMATS)}"
        raise UsageError(f"unknown format {fmt!r}", do=advice)
    return FORMATS[fmt]


def parse_formats(text: str) -> tuple[str, ...]:
    """`pte,onnx` -> ("pte", "onnx"), each once, in the order given. UsageError for unknown names, or none."""
    formats = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not formats:
        raise UsageError("no format given", do=f"give some of {', '.join(FORMATS)}")
    for fmt in formats:
        runtime_of(fmt)
    return formats


def available_runtimes() -> dict[str, str | None]:
    """Runtime -> installed version, or None when it is not installed. Imports none of them."""
    versions: dict[str, str | None] = {}
    for runtime, (distribution, *_) in _RUNTIMES.items():
        try:
            versions[runtime] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            versions[runtime] = None
        if importlib.util.find_spec(distribution) is None:
            versions[runtime] = None
    return versions


def require_runtime(runtime: str) -> None:
    """Raises FinetDeployError, with the command that installs it, when `runtime` is not installed."""
    extra = _RUNTIMES[runtime].extra
    if available_runtimes()[runtime] is None:
        package = f"finet-deploy[{extra}]" if extra else "finet-deploy"
        raise FinetDeployError(f"{runtime} is not installed", do=f"pip install '{package}'")


def import_runtime(fmt: str) -> None:
    """Import the libraries of the runtime of `fmt`, so that opening a file afterwards takes the file's time alone."""
    for library in _RUNTIMES[runtime_of(fmt)].libraries:
        importlib.import_module(library)


def open_session(path: Path | str, fmt: str, *, threads: int) -> Session:
    """Load the file at `path` into the runtime of its format, with `threads` threads.

    Thread settings of ExecuTorch and PyTorch belong to the process: for exact counts open one session a process.
    A damaged file may crash the process inside ExecuTorch (its loader checks the outer format only): check the
    file's hash first, or use `run_isolated`.

    Raises UsageError for an unknown format or threads < 1, FinetDeployError for a missing runtime, a missing file,
    or one that the runtime refuses.
    """
    runtime = runtime_of(fmt)
    if threads < 1:
        raise UsageError(f"threads={threads} is not positive", do="give 1 or more")
    require_runtime(runtime)
    path = Path(path)
    if not path.is_file():
        raise FinetDeployError(
            "no such file", where=str(path), do="check the path, or export the bundle again"
        )
    module, _, name = _RUNTIMES[runtime].session.partition(":")
    session: Session = getattr(importlib.import_module(module), name)(path, threads)
    return session
