"""What every runtime session is and checks. Inputs are fp32 NCHW arrays, C-contiguous, of one static shape."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finet_deploy.errors import FinetDeployError, UsageError

__all__ = ["Session"]

Array = NDArray[np.float32]


class Session(abc.ABC):
    """One exported file, loaded in its runtime.

    runtime: `executorch`, `onnxruntime` or `torch_mobile`. version: of the runtime. threads: the effective number,
    read back after loading. input_shape: the static shape that the file was made for, None when it does not say.
    """

    runtime: str
    # What the runtime raises on a file that it cannot load or run.
    errors: tuple[type[Exception], ...] = (RuntimeError,)

    def __init__(self, path: Path, threads: int) -> None:
        self.path = path
        self.version: str = ""
        self.threads: int = 0
        self.input_shape: tuple[int, ...] | None = None
        with self._explained("cannot load this file"):
            self._load(threads)

    @abc.abstractmethod
    def _load(self, threads: int) -> None:
        """Load `self.path`; set version, threads and input_shape."""

    @abc.abstractmethod
    def _prepare(self, x: Array) -> Callable[[], Any]:
        """The bare runtime call on an input that was checked."""

    @abc.abstractmethod
    def _output(self, raw: Any) -> Array:
        """What the bare call returned, as an array that nothing else writes to."""

    def run(self, x: Array) -> Array:
        """The network's output (1, classes) for `x` (1, 3, H, W).

        Raises UsageError for a wrong input, FinetDeployError when the runtime fails on the file.
        """
        call = self.bind(x)
        with self._explained("cannot run this file"):
            return self._output(call())

    def bind(self, x: Array) -> Callable[[], Any]:
        """The runtime's own call on `x`, with no check or copy of ours inside: what a timing loop calls.

        Raises UsageError for a wrong input.
        """
        self._check(x)
        # Dimensions of size 1 may have any stride and still count as contiguous; reshaping gives them the usual one.
        x = x.reshape(-1).reshape(x.shape)
        return self._prepare(x if x.flags.writeable else x.copy())

    def _check(self, x: Array) -> None:
        """Runtimes do not check: a channels-last tensor goes through ExecuTorch and comes out wrong by 96 %."""
        if not isinstance(x, np.ndarray):
            raise UsageError(f"input is a {type(x).__name__}, not a numpy array", do="pass tensor.numpy()")
        if x.dtype != np.float32:
            raise UsageError(f"input is {x.dtype}, not float32", do="convert it with x.astype('float32')")
        if self.input_shape is not None and x.shape != self.input_shape:
            raise UsageError(
                f"input has shape {x.shape}, this file takes {self.input_shape}",
                where=str(self.path),
                do="run one image at a time, preprocessed to that size",
            )
        if not x.flags.c_contiguous:
            raise UsageError(
                f"input of shape {x.shape} has strides {x.strides}: not contiguous NCHW",
                do="call np.ascontiguousarray(x) (tensor.contiguous() for channels_last)",
            )

    @contextlib.contextmanager
    def _explained(self, found: str) -> Iterator[None]:
        try:
            yield
        except FinetDeployError:
            raise
        except self.errors as error:
            reason = str(error).strip().splitlines()
            raise FinetDeployError(
                f"{self.runtime} {found}: {(reason or [type(error).__name__])[0][:200]}",
                where=str(self.path),
                do="it is damaged, or made for another version: export the bundle again",
            ) from error
