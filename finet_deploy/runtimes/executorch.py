"""ExecuTorch: `.pte` files with XNNPACK delegates."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from finet_deploy.errors import FinetDeployError
from finet_deploy.runtimes.session import Array, Session

__all__ = ["ExecutorchSession"]

FLOAT = 6  # ScalarType::Float

# Written by the C++ side on every import and thread change: it looks for an Arm processor's files on other ones.
_KNOWN_NOISE = re.compile(rb"\[cpuinfo_utils\.cpp:\d+\] |\[threadpool\.cpp:\d+\] Resetting threadpool to ")


@contextlib.contextmanager
def _without_known_noise() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, and pass on all but the known, harmless lines."""
    try:
        stderr = os.dup(2)
    except OSError:  # closed: nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not _KNOWN_NOISE.match(line):
                    os.write(2, line)


@functools.cache
def _bindings() -> Any:
    # Not `executorch.runtime`: it imports the whole exporter (8 s). The bindings below it need only torch's
    # libraries, which must be loaded first (2.4 s together).
    with _without_known_noise():
        try:
            import torch  # noqa: F401
            from executorch.extension.pybindings import _C
        except ImportError as error:
            raise FinetDeployError(
                f"executorch cannot be loaded: {error}", do="pip install 'finet-deploy[executorch]'"
            ) from error
    return _C


class ExecutorchSession(Session):
    """A `.pte` file. Its thread pool belongs to the process: a second session changes the first one's threads.

    The runtime verifies the program's outer format only; XNNPACK aborts the process on some damaged payloads.
    """

    runtime = "executorch"
    errors = (RuntimeError, IndexError, ValueError)

    def _load(self, threads: int) -> None:
        bindings = _bindings()
        self.version = importlib.metadata.version("executorch")
        # Before the file is loaded: XNNPACK takes the pool when it compiles the delegate.
        with _without_known_noise():
            if bindings._threadpool_get_thread_count() != threads:
                bindings._unsafe_reset_threadpool(threads)
        self._module = bindings._load_for_executorch(str(self.path))
        meta = self._module.method_meta("forward")
        if meta.num_inputs() != 1 or meta.num_outputs() != 1 or meta.input_tensor_meta(0).dtype() != FLOAT:
            raise ValueError("its program does not take one fp32 tensor and give one tensor")
        self.input_shape = tuple(meta.input_tensor_meta(0).sizes())
        self.threads = int(bindings._threadpool_get_thread_count())

    def _prepare(self, x: Array) -> Callable[[], Any]:
        import torch

        # Cloned outputs, the runtime's default: 4 kB for 1000 classes.
        return functools.partial(self._module.run_method, "forward", (torch.from_numpy(x),))

    def _output(self, raw: Any) -> Array:
        return np.array(raw[0].numpy())
