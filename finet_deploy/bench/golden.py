"""The golden inputs and outputs of a bundle as numpy arrays: no torch, so that a worker starts in no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from finet_deploy.errors import FinetDeployError

__all__ = ["GoldenFile"]

INPUT, OUTPUT = "input.", "output."


class GoldenFile:
    """`golden.safetensors` of a bundle: inputs (1, C, H, W) fp32, outputs of the unfused network in fp64."""

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        try:
            self._file = safe_open(self._path, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise FinetDeployError(
                f"cannot read: {error}", where=self._path, do="export the bundle again"
            ) from error

    def input(self, name: str) -> NDArray[np.float32]:
        """A golden input, contiguous."""
        return np.ascontiguousarray(self._tensor(INPUT + name), dtype=np.float32)

    def output(self, name: str) -> NDArray[np.float64]:
        """The output that the network has on this input."""
        return np.asarray(self._tensor(OUTPUT + name), dtype=np.float64)

    def _tensor(self, key: str) -> NDArray[np.floating]:
        try:
            return self._file.get_tensor(key)
        except SafetensorError as error:
            do = "export the bundle again"
            raise FinetDeployError(f"no golden tensor {key!r}", where=self._path, do=do) from error
