"""PyTorch Mobile's lite interpreter: `.ptl` files. A legacy runtime, kept because the paper measured on it."""

from __future__ import annotations

import importlib.metadata
import json
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from finet_deploy.runtimes.session import Array, Session

__all__ = ["EXTRA_FILE", "TorchMobileSession"]

# The format has no place for the input's shape: ours is written beside the code, inside the archive.
EXTRA_FILE = "finet_deploy.json"
MAX_EXTRA_BYTES = 1 << 16


class TorchMobileSession(Session):
    """A `.ptl` file. torch's thread number belongs to the process."""

    runtime = "torch_mobile"
    # UnicodeDecodeError (a ValueError) and KeyError: damaged names inside the archive.
    errors = (RuntimeError, ValueError, KeyError, OSError, zipfile.BadZipFile)

    def _load(self, threads: int) -> None:
        import torch
        from torch.jit.mobile import _load_for_lite_interpreter

        self.version = importlib.metadata.version("torch")
        torch.set_num_threads(threads)
        self.input_shape = self._read_shape()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*(Lite Interpreter|torch.jit)", category=FutureWarning)
            warnings.filterwarnings("ignore", ".*(Lite Interpreter|torch.jit)", category=DeprecationWarning)
            self._module = _load_for_lite_interpreter(str(self.path))
        self.threads = torch.get_num_threads()

    def _read_shape(self) -> tuple[int, ...] | None:
        """The shape that our exporter wrote into the file; None in files of others."""
        with zipfile.ZipFile(self.path) as archive:
            damaged = archive.testzip()  # torch reads some damaged records without a word
            if damaged is not None:
                raise zipfile.BadZipFile(f"bad checksum of {damaged}")
            for entry in archive.infolist():
                if entry.filename.endswith(f"/extra/{EXTRA_FILE}") and entry.file_size <= MAX_EXTRA_BYTES:
                    return tuple(int(size) for size in json.loads(archive.read(entry))["input_shape"])
        return None

    def _prepare(self, x: Array) -> Callable[[], Any]:
        import torch

        tensor, module = torch.from_numpy(x), self._module
        inference_mode = torch.inference_mode

        def call() -> Any:
            with inference_mode():  # belongs to the thread, not to the module: it has to be entered here
                return module(tensor)

        return call

    def _output(self, raw: Any) -> Array:
        return np.array(raw.numpy())
